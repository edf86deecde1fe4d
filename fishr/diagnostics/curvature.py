"""Curvature of each domain's risk by the head's parameters: rows 6 to 8 of what is looked at.

A whole network is a head that reads the raw inputs: the same functions serve it.
"""

import torch

from fishr.diagnostics.hessian import Estimate, together
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.sampling import jackknife


@of_head
def hessian_diagonal(seen: Inspection) -> Quantity:
    """diag H_e of each domain, H_e = ∇²R_e.

    Returns:
        [K, P], loss/parameter².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> hessian_diagonal(head, *data).value.shape
        torch.Size([2, 8])
    """
    found, axes = seen.hessian_diagonals, ("domain", "parameter")
    return Quantity("hessian_diagonal", found.value, axes, "loss/parameter²", found.route, found.error)


@of_head
def hessian_trace(seen: Inspection) -> Quantity:
    """tr H_e of each domain.

    Returns:
        [K], loss/parameter².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> hessian_trace(head, *data).value.shape
        torch.Size([2])
    """
    found = traces(seen)
    return Quantity("hessian_trace", found.value, ("domain",), "loss/parameter²", found.route, found.error)


def traces(seen: Inspection) -> Estimate:
    """[K], tr H_e: the sum of an exact diagonal, else an estimate of its own.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> traces(Inspection(head, *data)).error
    """
    diagonals = seen.hessian_diagonals
    if diagonals.error is not None:
        return together([hessian.trace() for hessian in seen.hessians])
    return Estimate(diagonals.value.sum(1), f"sum of the diagonal, {diagonals.route}")


@of_head
def top_eigenvalues(seen: Inspection, *, rank: int = 5) -> Quantity:
    """The largest eigenvalues of each domain's Hessian, largest first.

    Args:
        seen: the head and its data.
        rank: how many; fewer where the matrix is smaller.

    Returns:
        [K, rank], loss/parameter²; the error is the residual norm ‖Hu − λu‖.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> top_eigenvalues(head, *data, rank=2).value.shape
        torch.Size([2, 2])
    """
    found = seen.tops(rank)
    shared = min(len(pairs.values) for pairs in found)
    values = torch.stack([pairs.values[:shared] for pairs in found])
    residuals = torch.stack([pairs.residuals[:shared] for pairs in found])
    route = "; ".join(dict.fromkeys(pairs.route for pairs in found))
    return Quantity("top_eigenvalues", values, ("domain", "rank"), "loss/parameter²", route, residuals)


@of_head
def effective_rank(seen: Inspection) -> Quantity:
    """(tr H_e)²/‖H_e‖_F²: how many equal eigenvalues would give the same trace and norm.

    Returns:
        [K], 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool((effective_rank(head, *data).value >= 1).all())
        True
    """
    trace, norm = traces(seen), seen.squared_norms
    value, error = jackknife(lambda t, n: t.square() / n, trace, norm)
    route = f"trace: {trace.route}; norm: {norm.route}"
    return Quantity("effective_rank", value, ("domain",), "1", route, error)
