"""Hessians on their range: head Hessians are rank-deficient, and are inverted only where there is curvature."""

import torch
from torch import Tensor

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import WHOLE_LIMIT, DenseHessian, Hessian
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.operators import largest_eigenpairs

_EIGH_SIZE, _TOLERANCE = 512, 1e-6


def whitener(matrix: Tensor, ridge: float) -> Tensor:
    """Return W = U(Λ + r)^(−1/2) [P, k] with r = ridge·λ_max, so that WWᵀ is the inverse on the range."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > len(matrix) * torch.finfo(matrix.dtype).eps * values[-1].clamp(min=0)
    return vectors[:, kept] / (values[kept] + ridge * max(float(values[-1]), 0.0)).sqrt()


def compact(curvature: Curvature, domain: int) -> Hessian:
    """Return a domain's Hessian in the smallest known coordinates, or its Gauss-Newton matrix if large."""
    # Neither an iterative solver of linear equations nor a Cholesky factor copes with negative eigenvalues.
    hessian = curvature.hessians[domain]
    if isinstance(hessian, LinearHessian):
        return hessian.reduced
    return hessian if isinstance(hessian, DenseHessian) else curvature.gauss_newton(domain)


def stand_in(curvature: Curvature) -> str:
    """Return what a route says where ``compact`` takes another matrix."""
    replaced = not isinstance(curvature.hessians[0], LinearHessian | DenseHessian)
    return "Gauss-Newton matrix in the place of H, " if replaced else ""


def cholesky(matrix: Tensor, shift: float) -> Tensor:
    """Return the Cholesky factor of a positive semidefinite matrix plus a shift, above rounding at least."""
    least = len(matrix) * torch.finfo(matrix.dtype).eps * float(matrix.diagonal().sum())
    return torch.linalg.cholesky(matrix.diagonal_scatter(matrix.diagonal() + max(shift, least)))


def null_space(matrix: Tensor) -> Tensor:
    """Return an orthonormal basis [P, m] of the null space of a positive semidefinite matrix."""
    from scipy.linalg.lapack import get_lapack_funcs

    # PᵀAP = LLᵀ with L of as many columns as the rank, by pivoting: a tenth of the work of the eigenvalues.
    array, size = matrix.numpy(force=True), len(matrix)
    tolerance = size * torch.finfo(matrix.dtype).eps * float(matrix.diagonal().max())
    (factor,) = get_lapack_funcs(("pstrf",), (array,))
    lower, pivots, rank, _ = factor(array, tol=tolerance, lower=1)
    found, order = torch.from_numpy(lower).tril().to(matrix), torch.from_numpy(pivots).long() - 1
    head, rest = found[:rank, :rank], found[rank:, :rank]
    basis = matrix.new_zeros(size, size - rank)
    basis[order[:rank]] = torch.linalg.solve_triangular(head.T, -rest.T, upper=True)
    basis[order[rank:]] = torch.eye(size - rank).to(matrix)
    # Well conditioned, so that the Cholesky factor of its Gram matrix makes it orthonormal in a third of qr's time.
    return torch.linalg.solve_triangular(torch.linalg.cholesky(basis.T @ basis).T, basis, upper=True, left=False)


def whole_if_small(hessian: Hessian) -> Tensor | None:
    if isinstance(hessian, LinearHessian | DenseHessian) and hessian.size <= WHOLE_LIMIT:
        return hessian.whole
    return None


def largest_eigenvalue(curvature: Curvature, domain: int, compacted: Hessian) -> Tensor:
    """Return that of a domain's compact Hessian; a Gauss-Newton matrix that stands for it has its own eigenvalues."""
    if isinstance(compacted, LinearHessian):
        return curvature.tops(1)[domain].values[0]
    return largest_of(compacted.whole) if isinstance(compacted, DenseHessian) else compacted.top(1).values[0]


def largest_of(matrix: Tensor) -> Tensor:
    """Return the largest eigenvalue of a symmetric matrix, of a large one without its other eigenvalues."""
    if len(matrix) <= _EIGH_SIZE:
        return torch.linalg.eigvalsh(matrix)[-1]
    return largest_eigenpairs(lambda vectors: matrix @ vectors, len(matrix), matrix, 1, "", _TOLERANCE).values[0]
