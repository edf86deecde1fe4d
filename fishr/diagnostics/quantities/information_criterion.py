"""Takeuchi information criterion tr(H⁻¹C)."""

from collections.abc import Callable

import torch
from torch import Tensor

from fishr.diagnostics.covariance import domain_gradients, whole_covariance
from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import Hessian
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.operators import curvlinops_operator, quiet
from fishr.diagnostics.range_space import compact, largest_eigenvalue, stand_in, whitener, whole_if_small
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, Estimation, averaged, jackknife, together
from fishr.losses import per_sample_losses
from fishr.seeding import seeded
from fishr.statistics.pure_forward import pure_forward

_TOLERANCE, _ITERATIONS = 1e-4, 1000


@diagnostic("1", ("domain",), section="curvature", scopes=("head", "network"))
def takeuchi(curvature: Curvature, *, ridge: float = 1e-3) -> Estimate:
    """tr((H_e + r)⁻¹ C_e) on the range of H_e, with r = ridge·λ_max(H_e).

    Meaning: gradient noise measured in units of curvature, an estimate of the effective number of parameters.
    Large: the gap between test and training risk is expected to be large: about this number divided by the samples.

    It is a pure number where C = H, as for a model that is right. Small heads by the eigenvalues of H. Otherwise an
    estimate: (H + r)x̂ = x by conjugate gradients for random combinations x of the centered gradients with E xxᵀ = C;
    for nonlinear heads, the Gauss-Newton matrix replaces H.

    Route: eigh, conjugate gradients for random signs. Exact: up to 2048 parameters (linear: dimensions of the span of
    the features).

    Args:
        ridge: as a share of the largest eigenvalue.

    Source:
        Thomas et al. 2020 (arXiv 1906.07774).
    """
    return together([_of_domain(curvature, domain, ridge) for domain in range(curvature.seen.domains)])


@diagnostic("1", ("domain",), section="curvature")
def takeuchi_diagonal(curvature: Curvature, *, ridge: float = 1e-3) -> Estimate:
    """Σ_i v_e,i/(h_e,i + r) of the diagonals, r = ridge·max h_e: ``takeuchi`` if both matrices were diagonal.

    Meaning: takeuchi without interactions of parameters: cheaper and cruder. Large: as for takeuchi.

    Route: gradient variance and diag H. Exact: as hessian_diagonal.

    Args:
        ridge: as a share of the largest entry; entries of h_e below zero count as zero.
    """

    def trace(diagonals: Tensor) -> Tensor:
        curved = diagonals.clamp(min=0)
        ratios = curvature.seen.moments.variance / (curved + ridge * curved.amax(1, keepdim=True))
        # Where nothing is curved and nothing varies the ratio is 0/0 and adds nothing.
        return ratios.nan_to_num(nan=0.0, posinf=torch.inf).sum(1)

    diagonals = curvature.hessian_diagonals
    route = f"diagonals, {diagonals.route}, ridge {ridge:g} of the largest entry"
    return jackknife(trace, diagonals, smooth=False, route=route)


def _of_domain(curvature: Curvature, domain: int, ridge: float) -> Estimate:
    hessian = compact(curvature.hessians[domain])
    matrix = whole_if_small(hessian)
    if matrix is not None:
        root = whitener(matrix, ridge)
        value = (root * (whole_covariance(_gradients(curvature, domain, hessian)) @ root)).sum()
        return Estimate(value, f"eigh on the range of H, {_ridge(ridge)}, the null space projected out")
    shift = float(ridge * largest_eigenvalue(curvature, domain, hessian))
    combine, samples = _combination(curvature, domain, hessian), curvature.seen.sizes[domain]
    return takeuchi_by_solving(hessian, combine, samples, shift, ridge, curvature.estimation)


def takeuchi_by_solving(
    hessian: Hessian,
    combine: Callable[[Tensor], Tensor],
    samples: int,
    shift: float,
    ridge: float,
    estimation: Estimation,
) -> Estimate:
    """Return tr((H + shift)⁻¹ C) = E xᵀ(H + shift)⁻¹x by conjugate gradients, x = Σ_n w_n (g_n − ḡ)/√n with signs w."""
    # `combine` maps weights [n, M] to sums of gradients [P, M]. The error is the standard error plus a solver's bound.
    like, count = hessian.like, estimation.products
    with quiet(), seeded(estimation.seed, like.device):
        from curvlinops import CGInverseLinearOperator
        from curvlinops.examples import IdentityLinearOperator

        weights = torch.randint(2, (samples, count), device=like.device).to(like.dtype) * 2 - 1
        right = combine(weights - weights.mean(0)) / samples**0.5
        identity = IdentityLinearOperator([(hessian.size,)], like.device, like.dtype)
        shifted = curvlinops_operator(hessian) + shift * identity
        # Its safeguard against division by zero, 1e-10 by default, would end the iteration for weakly curved risks.
        inverse = CGInverseLinearOperator(shifted, tolerance=_TOLERANCE, max_iter=_ITERATIONS, eps=1e-30)
        solved = inverse @ right
    remainder = right - shifted @ solved
    values = (right * solved).sum(0)
    # xᵀH⁻¹x − xᵀx̂ = x̂ᵀr + rᵀH⁻¹r for the remainder r, and H is at least the shift.
    left = ((solved * remainder).sum(0).abs() + remainder.square().sum(0) / shift).mean()
    route = f"{stand_in(hessian)}conjugate gradients for {count} random signs, seed {estimation.seed}, {_ridge(ridge)}"
    mean = averaged(values, route)
    assert mean.error is not None
    return Estimate(mean.value, f"{mean.route} and the solver's", mean.error + left)


def _ridge(ridge: float) -> str:
    return f"ridge {ridge:g}·λ_max"


def _gradients(curvature: Curvature, domain: int, hessian: Hessian) -> Tensor:
    """Return the per-sample gradients [n, P] in the coordinates of the compact Hessian."""
    if not isinstance(hessian, LinearHessian):
        return domain_gradients(curvature, domain)
    deltas = curvature.seen.per_domain(curvature.seen.deltas)[domain]
    return (deltas.unsqueeze(2) * hessian.inputs.unsqueeze(1)).flatten(1)


def _combination(curvature: Curvature, domain: int, hessian: Hessian) -> Callable[[Tensor], Tensor]:
    seen = curvature.seen
    if isinstance(hessian, LinearHessian):
        deltas = seen.per_domain(seen.deltas)[domain]

        def outer(weights: Tensor) -> Tensor:
            weighted = weights.unsqueeze(2) * deltas.unsqueeze(1)
            return (weighted.flatten(1).T @ hessian.inputs).view(weights.shape[1], -1).T

        return outer

    def backward(weights: Tensor) -> Tensor:
        parameters = [p for p in curvature.head.parameters() if p.requires_grad]
        features, labels = seen.domain_samples[domain]
        with torch.enable_grad():
            losses = per_sample_losses(seen.loss, pure_forward(curvature.head, features, {}), labels)
            columns = [torch.autograd.grad(losses @ w, parameters, retain_graph=True) for w in weights.unbind(1)]
        return torch.stack([torch.cat([part.flatten() for part in column]) for column in columns], 1)

    return backward
