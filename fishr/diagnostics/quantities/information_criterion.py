"""Takeuchi information criterion tr(H⁻¹C)."""

from collections.abc import Callable

import torch
from attrs import evolve
from torch import Tensor

from fishr.diagnostics.covariance import domain_gradients, whole_covariance
from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import DenseHessian, Hessian
from fishr.diagnostics.krylov import block_conjugate_gradients
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.range_space import (
    cholesky,
    compact,
    largest_eigenvalue,
    largest_of,
    stand_in,
    whitener,
    whole_if_small,
)
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, Estimation, averaged, jackknife, together
from fishr.losses import per_sample_losses
from fishr.seeding import seeded
from fishr.statistics.pure_forward import pure_forward

_TOLERANCE, _ITERATIONS = 1e-4, 1000
# Samples times outputs up to which the Gram matrix of their Jacobians is made: 128 MiB in float64.
GRAM_LIMIT = 4096
_LEAST_RIDGE = 1e-8


@diagnostic("loss", ("domain",), section="curvature", scopes=("head", "network"))
def takeuchi(curvature: Curvature, *, ridge: float = 1e-3) -> Estimate:
    """tr((H_e + r)⁻¹ C_e) on the range of H_e, with r = ridge·λ_max(H_e).

    Meaning: gradient noise measured in units of curvature, an estimate of the effective number of parameters.
    Large: the gap between test and training risk is expected to be large: about this number divided by the samples.

    It counts parameters if the loss is in nats and the model is right, so that C = H. Small heads by the eigenvalues of
    H. For large nonlinear heads the Gauss-Newton matrix replaces H: exactly by the Gram matrix of the Jacobians, if the
    parameters are of linear layers. Otherwise an estimate: (H + r)x̂ = x by conjugate gradients, on all x together, for
    random combinations x of the centered gradients with E xxᵀ = C.

    Route: eigh, Gram matrix of the Jacobians, conjugate gradients for random signs. Exact: up to 2048 parameters
    (linear: dimensions of the span of the features), linear layers up to 4096 samples times outputs.

    Args:
        ridge: as a share of the largest eigenvalue.

    Source:
        Thomas et al. 2020 (arXiv 1906.07774).
    """
    return together([_of_domain(curvature, domain, ridge) for domain in range(curvature.seen.domains)])


@diagnostic("loss", ("domain",), section="curvature")
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
    hessian = compact(curvature, domain)
    matrix = whole_if_small(hessian)
    if matrix is not None:
        root = whitener(matrix, ridge)
        value = (root * (whole_covariance(_gradients(curvature, domain, hessian)) @ root)).sum()
        return Estimate(value, f"eigh on the range of H, {_ridge(ridge)}, the null space projected out")
    if not curvature.linear and (found := _by_jacobians(curvature, domain, ridge)) is not None:
        return found
    shift = float(ridge * largest_eigenvalue(curvature, domain, hessian))
    if isinstance(hessian, DenseHessian):
        covariance = whole_covariance(domain_gradients(curvature, domain))
        value = torch.cholesky_solve(covariance, cholesky(hessian.whole, shift)).trace()
        return Estimate(value, f"{stand_in(curvature)}Cholesky factor, {_ridge(ridge)}")
    combine, samples = _combination(curvature, domain, hessian), curvature.seen.sizes[domain]
    found = takeuchi_by_solving(hessian, combine, samples, shift, ridge, curvature.estimation)
    return evolve(found, route=f"{stand_in(curvature)}{found.route}")


def _by_jacobians(curvature: Curvature, domain: int, ridge: float) -> Estimate | None:
    """Return tr((G + r)⁻¹C) exactly from the Gram matrix of the Jacobians, or None where that is large or unknown."""
    seen, outputs = curvature.seen, curvature.seen.logits.shape[1]
    samples = seen.sizes[domain]
    known = curvature.layered is not None and curvature.of_logits.convex
    # The difference below loses as many digits as the ridge has zeros.
    if not known or samples * outputs > GRAM_LIMIT or ridge < _LEAST_RIDGE:
        return None
    assert curvature.layered is not None
    layered = curvature.layered[domain]
    values, vectors = torch.linalg.eigh(layered.curvature.dense().double())
    # G = SᵀS with S = (A/n)^½ J, so that (G + r)⁻¹ = (1 − Sᵀ(SSᵀ + r)⁻¹S)/r, and the gradients are δJ.
    gram = layered.jacobian_gram.double()
    deltas = seen.per_domain(seen.deltas)[domain].double()
    images = torch.einsum("ncmd,md->ncm", gram, deltas)
    images = images - images.mean(2, keepdim=True)
    own = torch.einsum("ncm,nc->nm", images, deltas)
    root = vectors * (values.clamp(min=0) / samples).sqrt().unsqueeze(1)
    turned = torch.einsum("nce,ncmd->nemd", root, gram)
    whole = torch.einsum("nemd,mdg->nemg", turned, root).reshape(samples * outputs, -1)
    shift = ridge * float(largest_of(whole))
    factor = torch.linalg.cholesky(whole.diagonal_scatter(whole.diagonal() + shift))
    solved = torch.linalg.solve_triangular(
        factor, torch.einsum("nce,ncm->nem", root, images).flatten(0, 1), upper=False
    )
    value = ((own - own.mean(0)).trace() - solved.square().sum()) / (shift * samples)
    route = f"{stand_in(curvature)}Gram matrix of {samples}×{outputs} Jacobians, {_ridge(ridge)}"
    return Estimate(value.to(seen.domain_losses), route)


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
    with seeded(estimation.seed, like.device):
        weights = torch.randint(2, (samples, count), device=like.device).to(like.dtype) * 2 - 1
    right = combine(weights - weights.mean(0)) / samples**0.5

    def shifted(vectors: Tensor) -> Tensor:
        return hessian.apply(vectors) + shift * vectors

    solved = block_conjugate_gradients(shifted, right, _TOLERANCE, _ITERATIONS)
    remainder = right - shifted(solved)
    values = (right * solved).sum(0)
    # xᵀH⁻¹x − xᵀx̂ = x̂ᵀr + rᵀH⁻¹r for the remainder r, and H is at least the shift.
    left = ((solved * remainder).sum(0).abs() + remainder.square().sum(0) / shift).mean()
    route = f"conjugate gradients for {count} random signs, seed {estimation.seed}, {_ridge(ridge)}"
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
