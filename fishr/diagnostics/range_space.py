"""Hessians on their range: head Hessians are rank-deficient, and are inverted only where there is curvature."""

import torch
from attrs import evolve
from torch import Tensor

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import WHOLE_LIMIT, DenseHessian, Hessian
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.operator_hessian import OperatorHessian


def whitener(matrix: Tensor, ridge: float) -> Tensor:
    """Return W = U(Λ + r)^(−1/2) [P, k] with r = ridge·λ_max, so that WWᵀ is the inverse on the range."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > len(matrix) * torch.finfo(matrix.dtype).eps * values[-1].clamp(min=0)
    return vectors[:, kept] / (values[kept] + ridge * max(float(values[-1]), 0.0)).sqrt()


def compact(hessian: Hessian) -> Hessian:
    """Return the same matrix in the smallest known coordinates, or its Gauss-Newton matrix if large."""
    # No iterative solver of linear equations copes with negative eigenvalues.
    if isinstance(hessian, LinearHessian):
        return hessian.reduced
    return evolve(hessian, kind="ggn") if isinstance(hessian, OperatorHessian) else hessian


def stand_in(hessian: Hessian) -> str:
    """Return what a route says where ``compact`` took another matrix."""
    replaced = isinstance(hessian, OperatorHessian) and hessian.kind == "ggn"
    return "Gauss-Newton matrix in the place of H, " if replaced else ""


def whole_if_small(hessian: Hessian) -> Tensor | None:
    if isinstance(hessian, LinearHessian | DenseHessian) and hessian.size <= WHOLE_LIMIT:
        return hessian.whole
    return None


def largest_eigenvalue(curvature: Curvature, domain: int, compacted: Hessian) -> Tensor:
    """Return that of a domain's compact Hessian; a Gauss-Newton matrix that stands for it has its own eigenvalues."""
    shared = isinstance(compacted, LinearHessian)
    return (curvature.tops(1)[domain] if shared else compacted.top(1)).values[0]
