"""How far domains differ in gradient variance, gradient covariance and Hessian: rows 12 to 14 of what is looked at."""

from torch import Tensor

from fishr.diagnostics.covariance import covariance_inner_products
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.sampling import jackknife
from fishr.statistics.distances import (
    distance_to_mean,
    pairwise_distances,
    pairwise_distances_of_products,
    scale_free_distance,
)

_VARIANCES = "moments of the per-sample gradients"
_PAIRS = ("domain", "domain")


@of_head
def variance_distance(seen: Inspection) -> Quantity:
    """(1/K) Σ_e ‖v_e − v̄‖², the Fishr penalty as a sum over parameters.

    Returns:
        0-dim, (loss/parameter)⁴.

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> variance_distance(head, *data).axes
        ()

    Source:
        Ramé et al. 2022 (arXiv 2109.02934), equation 4.
    """
    value = distance_to_mean(seen.moments.variance, parameters="sum")
    return Quantity("variance_distance", value, (), "(loss/parameter)⁴", _VARIANCES)


@of_head
def variance_distances(seen: Inspection) -> Quantity:
    """‖v_A − v_B‖² for every pair of domains.

    Returns:
        [K, K], (loss/parameter)⁴.

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> variance_distances(head, *data).value.diagonal()
        tensor([0., 0.])
    """
    value = pairwise_distances(seen.moments.variance)
    return Quantity("variance_distances", value, _PAIRS, "(loss/parameter)⁴", _VARIANCES)


@of_head
def variance_distance_scale_free(seen: Inspection) -> Quantity:
    """(1/K) Σ_e ‖v_e − v̄‖²/‖v̄‖²: comparable between heads and over training.

    Returns:
        0-dim, 1.

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> variance_distance_scale_free(head, *data).unit
        '1'
    """
    value = scale_free_distance(seen.moments.variance)
    return Quantity("variance_distance_scale_free", value, (), "1", _VARIANCES)


@of_head
def covariance_distances(seen: Inspection) -> Quantity:
    """‖C_A − C_B‖_F² for every pair of domains.

    Returns:
        [K, K], (loss/parameter)⁴; NaN with the reason in the route where it is too large.

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> covariance_distances(head, *data).value.shape
        torch.Size([2, 2])
    """
    products = covariance_inner_products(seen)
    value = pairwise_distances_of_products(products.value)
    return Quantity("covariance_distances", value, _PAIRS, "(loss/parameter)⁴", products.route)


@of_head
def hessian_diagonal_distances(seen: Inspection) -> Quantity:
    """‖diag H_A − diag H_B‖² for every pair of domains.

    Returns:
        [K, K], (loss/parameter²)².

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> hessian_diagonal_distances(head, *data).value.diagonal()
        tensor([0., 0.])
    """
    found = seen.hessian_diagonals
    value, error = jackknife(pairwise_distances, found)
    return Quantity("hessian_diagonal_distances", value.clamp(min=0), _PAIRS, "(loss/parameter²)²", found.route, error)


@of_head
def hessian_diagonal_distance_scale_free(seen: Inspection) -> Quantity:
    """(1/K) Σ_e ‖h_e − h̄‖²/‖h̄‖² of the diagonals h_e = diag H_e.

    Returns:
        0-dim, 1.

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> hessian_diagonal_distance_scale_free(head, *data).unit
        '1'
    """
    found = seen.hessian_diagonals
    value, error = jackknife(scale_free_distance, found)
    return Quantity("hessian_diagonal_distance_scale_free", value.clamp(min=0), (), "1", found.route, error)


@of_head
def hessian_distances(seen: Inspection) -> Quantity:
    """‖H_A − H_B‖_F² for every pair of domains.

    Returns:
        [K, K], (loss/parameter²)².

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> hessian_distances(head, *data).value.shape
        torch.Size([2, 2])
    """
    found = seen.hessian_products
    value, error = jackknife(pairwise_distances_of_products, found)
    return Quantity("hessian_distances", value, _PAIRS, "(loss/parameter²)²", found.route, error)


@of_head
def hessian_cosines(seen: Inspection) -> Quantity:
    """⟨H_A, H_B⟩/(‖H_A‖‖H_B‖) for every pair of domains.

    Returns:
        [K, K], 1.

    Example:
        >>> import torch
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> hessian_cosines(head, *data).value.shape
        torch.Size([2, 2])
    """
    found = seen.hessian_products
    value, error = jackknife(_cosines_of_products, found)
    return Quantity("hessian_cosines", value, _PAIRS, "1", found.route, error)


def _cosines_of_products(products: Tensor) -> Tensor:
    squares = products.diagonal()
    norms = squares.sqrt()
    # A matrix with itself: 1 without rounding, or NaN where it is zero.
    return (products / (norms[:, None] * norms[None, :])).diagonal_scatter(squares / squares)
