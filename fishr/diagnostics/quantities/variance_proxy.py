"""Agreement of the gradient variance with the curvature that it stands for.

Agreement of C with H is an empirical matter: C is the empirical Fisher less a rank-one matrix, and the empirical
Fisher is the Fisher only if the labels look drawn from the model (Kunstner et al. 2019, arXiv 1905.12558).
"""

import torch
from attrs import evolve
from torch import Tensor

from fishr.diagnostics.covariance import covariance_hessian_products, covariance_inner_products
from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, jackknife


@diagnostic("1", ("domain",), section="curvature", headline="cosine of variance and diagonal Hessian")
def variance_hessian_cosine(curvature: Curvature) -> Estimate:
    """cos(v_e, diag H_e).

    Meaning: how far gradient variance points along the diagonal of the Hessian, 1 at most. Large: at 1 matching
    variances also matches curvature, up to scale.

    Route: gradient variance and diag H. Exact: as hessian_diagonal.

    Returns:
        [K], 1; NaN for a domain of a single sample, which has no variance.
    """
    variance, diagonals = curvature.seen.moments.variance, curvature.hessian_diagonals

    def cosines(diagonal: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(variance, dim=1) * torch.linalg.vector_norm(diagonal, dim=1)
        return (variance * diagonal).sum(1) / norms

    return _defined(curvature, jackknife(cosines, diagonals, route=diagonals.route))


@diagnostic("1", ("domain",), section="curvature")
def variance_hessian_error(curvature: Curvature) -> Estimate:
    """‖v_e − diag H_e‖/‖diag H_e‖, the relative Frobenius error of the variance as the Hessian's diagonal.

    Meaning: distance of gradient variance from the diagonal of the Hessian, scale included. Large: the variance is
    no stand-in for the curvature here.

    Route: gradient variance and diag H. Exact: as hessian_diagonal.
    """
    variance, diagonals = curvature.seen.moments.variance, curvature.hessian_diagonals

    def errors(diagonal: Tensor) -> Tensor:
        return torch.linalg.vector_norm(variance - diagonal, dim=1) / torch.linalg.vector_norm(diagonal, dim=1)

    return jackknife(errors, diagonals, route=diagonals.route)


@diagnostic("1", ("domain",), section="curvature", headline="cosine of covariance and Hessian")
def covariance_hessian_cosine(curvature: Curvature) -> Estimate:
    """cos(C_e, H_e) = ⟨C_e, H_e⟩/(‖C_e‖‖H_e‖) of the whole matrices.

    Meaning: how far the whole gradient covariance points along the whole Hessian, 1 at most. Large: at 1 the
    gradient noise has the shape of the curvature.

    Route: whole matrices, Gram matrices of the samples and products of H. Exact: linear heads, up to 2048 parameters.

    Returns:
        [K], 1; NaN for a domain of a single sample, and with the reason in the route where it is too large.
    """
    products, inner = covariance_hessian_products(curvature), covariance_inner_products(curvature)
    norms = curvature.squared_norms
    route = f"⟨C, H⟩: {products.route}; ‖C‖: {inner.route}; ‖H‖: {norms.route}"
    found = jackknife(lambda square: products.value / (inner.value.diagonal() * square).sqrt(), norms, route=route)
    return _defined(curvature, found)


def _defined(curvature: Curvature, cosines: Estimate) -> Estimate:
    single = torch.tensor([size == 1 for size in curvature.seen.sizes], device=cosines.value.device)
    return evolve(cosines, value=cosines.value.masked_fill(single, torch.nan))
