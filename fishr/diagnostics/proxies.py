"""How good a proxy of the curvature the gradient variance is: row 10 of what is looked at.

Agreement of C with H is an empirical matter: C is the empirical Fisher less a rank-one matrix, and the empirical
Fisher is the Fisher only if the labels look drawn from the model (Kunstner et al. 2019, arXiv 1905.12558).
"""

import torch
from torch import Tensor

from fishr.diagnostics.covariance import covariance_hessian_products, covariance_inner_products
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.sampling import jackknife


@of_head
def variance_hessian_cosine(seen: Inspection) -> Quantity:
    """cos(v_e, diag H_e).

    Returns:
        [K], 1; NaN for a domain of a single sample, which has no variance.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> variance_hessian_cosine(head, *data).value.shape
        torch.Size([2])
    """
    variance, diagonals = seen.moments.variance, seen.hessian_diagonals

    def cosines(diagonal: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(variance, dim=1) * torch.linalg.vector_norm(diagonal, dim=1)
        return (variance * diagonal).sum(1) / norms

    value, error = jackknife(cosines, diagonals)
    return Quantity("variance_hessian_cosine", _defined(seen, value), ("domain",), "1", diagonals.route, error)


@of_head
def variance_hessian_error(seen: Inspection) -> Quantity:
    """‖v_e − diag H_e‖/‖diag H_e‖, the relative Frobenius error of the variance as the Hessian's diagonal.

    Returns:
        [K], 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> variance_hessian_error(head, *data).value.shape
        torch.Size([2])
    """
    variance, diagonals = seen.moments.variance, seen.hessian_diagonals

    def errors(diagonal: Tensor) -> Tensor:
        return torch.linalg.vector_norm(variance - diagonal, dim=1) / torch.linalg.vector_norm(diagonal, dim=1)

    value, error = jackknife(errors, diagonals)
    return Quantity("variance_hessian_error", value, ("domain",), "1", diagonals.route, error)


@of_head
def covariance_hessian_cosine(seen: Inspection) -> Quantity:
    """cos(C_e, H_e) = ⟨C_e, H_e⟩/(‖C_e‖‖H_e‖) of the whole matrices.

    Returns:
        [K], 1; NaN for a domain of a single sample, and with the reason in the route where it is too large.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> covariance_hessian_cosine(head, *data).value.shape
        torch.Size([2])
    """
    products, inner, norms = covariance_hessian_products(seen), covariance_inner_products(seen), seen.squared_norms
    value, error = jackknife(lambda square: products.value / (inner.value.diagonal() * square).sqrt(), norms)
    route = f"⟨C, H⟩: {products.route}; ‖C‖: {inner.route}; ‖H‖: {norms.route}"
    return Quantity("covariance_hessian_cosine", _defined(seen, value), ("domain",), "1", route, error)


def _defined(seen: Inspection, cosines: Tensor) -> Tensor:
    single = torch.tensor([size == 1 for size in seen.sizes], device=cosines.device)
    return cosines.masked_fill(single, torch.nan)
