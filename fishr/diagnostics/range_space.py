"""A Hessian on its range: head Hessians are rank-deficient, and inverses are taken where there is curvature alone."""

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.diagnostics.dense_hessian import WHOLE_LIMIT, DenseHessian
from fishr.diagnostics.hessian import Hessian
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.operator_hessian import OperatorHessian


@frozen(eq=False)
class RangeSpace:
    """Eigenpairs of a matrix with positive eigenvalues, and the ridge that is added to them.

    Args:
        values: [r], loss/parameter².
        vectors: [P, r].
        ridge: added to the values before they are inverted, loss/parameter².

    Example:
        >>> space = range_space(torch.diag(torch.tensor([4.0, 0.0])), ridge=0.0)
        >>> space.values, space.whitener.abs()
        (tensor([4.]), tensor([[0.5000],
                [0.0000]]))
    """

    values: Tensor
    vectors: Tensor
    ridge: float

    @property
    def whitener(self) -> Tensor:
        """[P, r], W = U(Λ + ridge)^(−1/2), with WWᵀ the inverse on the range."""
        return self.vectors / (self.values + self.ridge).sqrt()


def range_space(matrix: Tensor, ridge: float) -> RangeSpace:
    """The part of a symmetric matrix with eigenvalues above rounding, P·ε·λ_max; flat and downward directions drop.

    Args:
        matrix: [P, P].
        ridge: as a share of λ_max.

    Returns:
        The eigenpairs that stay, and the ridge in the matrix's unit.

    Example:
        >>> range_space(torch.diag(torch.tensor([4.0, 1.0, -1.0])), ridge=0.25).values
        tensor([1., 4.])
    """
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > len(matrix) * torch.finfo(matrix.dtype).eps * values[-1].clamp(min=0)
    return RangeSpace(values[kept], vectors[:, kept], ridge * max(float(values[-1]), 0.0))


def compact(hessian: Hessian) -> Hessian:
    """The same matrix in the smallest coordinates known that hold its range, and without negative eigenvalues if large.

    A Hessian that is known by products alone may have negative eigenvalues, with which no iterative solver of linear
    equations copes: its Gauss-Newton matrix takes its place.

    Example:
        >>> compact(DenseHessian(torch.eye(2))).size
        2
    """
    if isinstance(hessian, LinearHessian):
        return hessian.reduced[0]
    return evolve(hessian, kind="ggn") if isinstance(hessian, OperatorHessian) else hessian


def stand_in(hessian: Hessian) -> str:
    """What a route says where ``compact`` took another matrix; nothing for the Hessian itself.

    Example:
        >>> stand_in(DenseHessian(torch.eye(2)))
        ''
    """
    replaced = isinstance(hessian, OperatorHessian) and hessian.kind == "ggn"
    return "Gauss-Newton matrix in the place of H, " if replaced else ""


def whole_if_small(hessian: Hessian) -> Tensor | None:
    """[P, P] up to 2048 parameters, else None.

    Example:
        >>> whole_if_small(DenseHessian(torch.eye(1)))
        tensor([[1.]])
    """
    if isinstance(hessian, LinearHessian | DenseHessian) and hessian.size <= WHOLE_LIMIT:
        return hessian.whole
    return None
