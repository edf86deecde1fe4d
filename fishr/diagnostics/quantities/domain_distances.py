"""Distances between domains in gradient variance, gradient covariance and Hessian."""

from collections.abc import Callable

from attrs import evolve
from torch import Tensor

from fishr.diagnostics.covariance import covariance_inner_products
from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, jackknife
from fishr.observation import Observation
from fishr.statistics.distances import (
    distance_to_mean,
    pairwise_distances,
    pairwise_distances_of_products,
    scale_free_distance,
)

_VARIANCES = "moments of the per-sample gradients"
_PAIRS = ("domain", "domain")


@diagnostic("(loss/parameter)⁴", section="distances")
def variance_distance(seen: Observation) -> Estimate:
    """(1/K) Σ_e ‖v_e − v̄‖², the Fishr penalty as a sum over parameters.

    Meaning: the Fishr penalty: how far the domains' gradient variances are from their mean. Large: the domains'
    gradients differ in spread; the scale depends on loss, features and stage of training.

    Route: gradient variance. Exact: always.

    Source:
        Ramé et al. 2022 (arXiv 2109.02934), equation 4.
    """
    return Estimate(distance_to_mean(seen.moments.variance, parameters="sum"), _VARIANCES)


@diagnostic("(loss/parameter)⁴", _PAIRS, section="distances")
def variance_distances(seen: Observation) -> Estimate:
    """‖v_A − v_B‖² for every pair of domains.

    Meaning: distance of two domains' gradient variances. Large: this pair of domains differs in gradient variance.

    Route: gradient variance. Exact: always.
    """
    return Estimate(pairwise_distances(seen.moments.variance), _VARIANCES)


@diagnostic("1", section="distances", headline="distance of gradient variances, scale-free (Fishr)")
def variance_distance_scale_free(seen: Observation) -> Estimate:
    """(1/K) Σ_e ‖v_e − v̄‖²/‖v̄‖²: comparable between heads and over training.

    Meaning: the Fishr penalty relative to the variances themselves. Large: the variances differ as much as they are
    large; 0 if they match.

    Route: gradient variance. Exact: always.
    """
    return Estimate(scale_free_distance(seen.moments.variance), _VARIANCES)


@diagnostic("(loss/parameter)⁴", _PAIRS, section="distances")
def covariance_distances(curvature: Curvature) -> Estimate:
    """‖C_A − C_B‖_F² for every pair of domains.

    Meaning: distance of the whole gradient covariances of two domains, off-diagonal entries included. Large: this
    pair of domains differs in gradient noise, also between parameters.

    Route: whole matrices, Gram matrix of all samples. Exact: always.
    """
    products = covariance_inner_products(curvature)
    return Estimate(pairwise_distances_of_products(products.value), products.route)


@diagnostic("(loss/parameter²)²", _PAIRS, section="distances")
def hessian_diagonal_distances(curvature: Curvature) -> Estimate:
    """‖diag H_A − diag H_B‖² for every pair of domains.

    Meaning: distance of two domains' curvatures along the parameters. Large: the pair is curved differently along
    some parameters.

    Route: diag H. Exact: as hessian_diagonal.
    """
    return _at_least_zero(pairwise_distances, curvature.hessian_diagonals)


@diagnostic("1", section="distances", headline="distance of diagonal Hessians, scale-free")
def hessian_diagonal_distance_scale_free(curvature: Curvature) -> Estimate:
    """(1/K) Σ_e ‖h_e − h̄‖²/‖h̄‖² of the diagonals h_e = diag H_e.

    Meaning: distance of the domains' diagonal Hessians relative to their size. Large: the domains are curved
    differently; 0 if their diagonals match.

    Route: diag H. Exact: as hessian_diagonal.
    """
    return _at_least_zero(scale_free_distance, curvature.hessian_diagonals)


@diagnostic("(loss/parameter²)²", _PAIRS, section="distances")
def hessian_distances(curvature: Curvature) -> Estimate:
    """‖H_A − H_B‖_F² for every pair of domains.

    Meaning: distance of two domains' whole Hessians. Large: the pair differs in curvature along some directions.

    Route: Gram matrices of the samples (linear), whole matrices, Hutchinson's estimator. Exact: linear heads, up to
    2048 parameters.
    """
    products = curvature.hessian_products
    return jackknife(pairwise_distances_of_products, products, route=products.route)


@diagnostic("1", _PAIRS, section="distances", headline="cosine of the Hessians")
def hessian_cosines(curvature: Curvature) -> Estimate:
    """⟨H_A, H_B⟩/(‖H_A‖‖H_B‖) for every pair of domains.

    Meaning: how far two domains' Hessians have the same shape, whatever their scale. Large: at 1 both domains are
    curved along the same directions in the same proportions.

    Route: Gram matrices of the samples (linear), whole matrices, Hutchinson's estimator. Exact: linear heads, up to
    2048 parameters.
    """
    products = curvature.hessian_products
    return jackknife(_cosines_of_products, products, route=products.route)


def _at_least_zero(distance: Callable[[Tensor], Tensor], diagonals: Estimate) -> Estimate:
    found = jackknife(distance, diagonals, route=diagonals.route)
    return evolve(found, value=found.value.clamp(min=0))


def _cosines_of_products(products: Tensor) -> Tensor:
    squares = products.diagonal()
    norms = squares.sqrt()
    # A matrix with itself: 1 without rounding, or NaN where it is zero.
    return (products / (norms[:, None] * norms[None, :])).diagonal_scatter(squares / squares)
