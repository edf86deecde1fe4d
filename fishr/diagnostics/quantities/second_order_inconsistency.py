"""Inconsistency of domains to second order."""

from collections.abc import Callable
from functools import partial

import torch
from attrs import evolve
from torch import Tensor

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import DenseHessian, Hessian
from fishr.diagnostics.krylov import block_conjugate_gradients, largest_of_pencil
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.range_space import (
    cholesky,
    compact,
    largest_eigenvalue,
    null_space,
    stand_in,
    whitener,
    whole_if_small,
)
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, jackknife, largest_of_pairs, together

Solve = Callable[[Tensor], Tensor]
# Of the residual, vectors of a block, blocks at most, and iterations of a solve at most.
_TOLERANCE, _BLOCK, _STEPS, _ITERATIONS = 1e-3, 8, 30, 1000
# Dimensions, of the span of a linear head's features or of the parameters, up to which a pair takes seconds.
SIZE_LIMIT = 16384


@diagnostic("loss", section="inconsistency", headline="inconsistency to second order")
def inconsistency_second_order(curvature: Curvature, *, epsilon: float = 0.1, ridge: float = 1e-3) -> Estimate:
    """The largest entry of ``inconsistency_second_order_pairs`` with A ≠ B; 0 for a single domain.

    Meaning: how different the other domains' risks can become where one domain's risk hardly changes, by curvature.
    Large: some weights are good for one domain and bad for another.

    Route: generalized eigenproblem by eigh, or by block Lanczos with a Cholesky factor or conjugate gradients. Exact:
    up to 2048 parameters (linear: dimensions of the span of the features); the gradients vanish by assumption.

    Args:
        epsilon: ε, loss.
        ridge: as a share of the largest eigenvalue of H_A.
    """
    return largest_of_pairs(inconsistency_second_order_pairs.of(curvature, epsilon=epsilon, ridge=ridge))


@diagnostic("loss", ("domain", "domain"), section="inconsistency")
def inconsistency_second_order_pairs(curvature: Curvature, *, epsilon: float = 0.1, ridge: float = 1e-3) -> Estimate:
    """max(|Δ|, |Δ + ε λ_max((H_A + r)⁻¹H_B)|), Δ = R_B − R_A, on the range of H_A with r = ridge·λ_max(H_A).

    Meaning: how different B's risk can become where A's risk hardly changes, by curvature. Large: weights that A
    cannot tell apart differ much for B.

    It is how far R_B gets from R_A(θ) in the region ½δᵀH_Aδ ≤ ε if both gradients vanish at θ. Directions in which A
    is not curved are projected out: along them B's risk would change without end. For a head that is not linear and
    too large to hold its Hessian the Gauss-Newton matrices take the Hessians' place.

    Route: generalized eigenproblem by eigh, or by block Lanczos with a Cholesky factor or conjugate gradients. Exact:
    up to 2048 parameters (linear: dimensions of the span of the features); the gradients vanish by assumption.

    Args:
        epsilon: ε, loss.
        ridge: as a share of the largest eigenvalue of H_A.

    Returns:
        [K, K], loss; row A, column B; NaN with the reason in the route where it is too large.

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329) and Ramé et al. 2022 (arXiv 2109.02934).
    """
    found, risks = _ratios(curvature, ridge), curvature.seen.domain_losses
    value, error = _furthest(risks, epsilon * found.value), None
    if found.error is not None:
        # Without the term of the Hessians |Δ| is exact.
        least = _furthest(risks, torch.zeros_like(value))
        most = _furthest(risks, epsilon * (found.value + found.error))
        error = torch.where(most > least, epsilon * found.error, 0.0)
    return Estimate(value, f"ε={epsilon:g}, {found.route}", error)


@diagnostic("loss", section="inconsistency", headline="inconsistency, diagonal proxy")
def inconsistency_diagonal_proxy(curvature: Curvature, *, epsilon: float = 0.1, ridge: float = 1e-3) -> Estimate:
    """max over A ≠ B of max(|Δ|, |Δ + ε max_i h_B,i/(h_A,i + r)|) of the diagonals, r = ridge·max h_A: a proxy.

    Meaning: the second-order inconsistency along single parameters alone: cheap, and often far too small. Large: the
    domains' diagonal curvatures differ in ratio or their risks differ.

    It sees the parameters' own axes alone and can be many times smaller than ``inconsistency_second_order``.

    Route: diag H. Exact: as hessian_diagonal.

    Args:
        epsilon: ε, loss.
        ridge: as a share of the largest entry of h_A; entries of h_A that are not positive are left out.
    """

    def furthest(diagonals: Tensor) -> Tensor:
        rows = list[Tensor]()
        for own in diagonals:
            ratios = diagonals / (own + ridge * own.max().clamp(min=0))
            rows.append(ratios.masked_fill(own <= 0, -torch.inf).amax(1).clamp(min=0))
        return _furthest(curvature.seen.domain_losses, epsilon * torch.stack(rows))

    route = f"a proxy: the parameters' axes alone; {curvature.hessian_diagonals.route}, ε={epsilon:g}, ridge {ridge:g}"
    return largest_of_pairs(jackknife(furthest, curvature.hessian_diagonals, smooth=False, route=route))


def _furthest(risks: Tensor, added: Tensor) -> Tensor:
    """Return max(|Δ|, |Δ + added|) [K, K], Δ = R_B − R_A."""
    difference = risks[None, :] - risks[:, None]
    return torch.maximum(difference.abs(), (difference + added).abs())


def _ratios(curvature: Curvature, ridge: float) -> Estimate:
    def one(a: int, b: int) -> Estimate:
        return curvature.once(("ratio", a, b, ridge), partial(_ratio, curvature, a, b, ridge))

    order = range(curvature.seen.domains)
    return together([together([one(a, b) for b in order]) for a in order])


def _ratio(curvature: Curvature, a: int, b: int, ridge: float) -> Estimate:
    """Return λ_max((H_A + r)⁻¹H_B) on the range of H_A."""
    own, other, risk = curvature.hessians[a], curvature.hessians[b], curvature.seen.domain_losses[a]
    below = compact(curvature, a)
    if isinstance(own, LinearHessian) and isinstance(other, LinearHessian):
        above: Hessian = other.onto(own)
    else:
        above = compact(curvature, b)
    matrices = whole_if_small(below), whole_if_small(above)
    if matrices[0] is not None and matrices[1] is not None:
        root = whitener(matrices[0], ridge)
        values = torch.linalg.eigvalsh(root.T @ matrices[1] @ root)
        value = values[-1] if len(values) else values.new_zeros(())
        return Estimate(value, f"eigh on the range of H_A, ridge {ridge:g}·λ_max(H_A), its null space projected out")
    if a == b:
        value = torch.full_like(risk, 1 / (1 + ridge))
        return Estimate(value, "λ/(λ + r) of a domain beside itself")
    if below.size > SIZE_LIMIT:
        reason = f"not computed: {below.size} > {SIZE_LIMIT} dimensions of curvature; take fewer samples"
        return Estimate(torch.full_like(risk, torch.nan), reason)
    shift = ridge * float(largest_eigenvalue(curvature, a, below))
    if isinstance(below, DenseHessian):
        solve, null = curvature.once(("inverse", a, ridge), partial(_inverse, below.whole, shift))
        found = largest_ratio(below, above, shift, solve, null)
        route = f"block Lanczos, inverse by a Cholesky factor, ridge {ridge:g}·λ_max(H_A), its null space projected out"
    else:
        found = largest_ratio(below, above, shift)
        route = f"block Lanczos, inverse by conjugate gradients, ridge {ridge:g}·λ_max(H_A)"
    return evolve(found, route=f"{stand_in(curvature)}{route}, error: of the residual")


def _inverse(matrix: Tensor, shift: float) -> tuple[Solve, Tensor]:
    """Return V ↦ (A + shift)⁻¹V, and a basis of the null space of A."""
    factor = cholesky(matrix, shift)
    return lambda vectors: torch.cholesky_solve(vectors, factor), null_space(matrix)


def largest_ratio(
    below: Hessian, above: Hessian, shift: float, solve: Solve | None = None, null: Tensor | None = None
) -> Estimate:
    """Return λ_max((A + shift)⁻¹B), off the null space of A where that is given."""
    # The error is the residual r = Bu − λMu, M = A + shift: an eigenvalue is within (rᵀM⁻¹r / uᵀMu)^½.
    size, like = below.size, below.like

    def shifted(vectors: Tensor) -> Tensor:
        return below.apply(vectors) + shift * vectors

    def iterated(right: Tensor) -> Tensor:
        return block_conjugate_gradients(shifted, right, _TOLERANCE / 10, _ITERATIONS)

    def seen(vectors: Tensor) -> Tensor:
        return vectors if null is None else vectors - null @ (null.T @ vectors)

    invert = solve or iterated
    start = torch.randn(size, min(size, _BLOCK), generator=torch.Generator().manual_seed(0), dtype=like.dtype)
    u = largest_of_pencil(lambda v: seen(above.apply(v)), invert, seen(start.to(like)), _TOLERANCE, _STEPS)
    up, down = seen(above.apply(u)), shifted(u)
    value = (u * up).sum() / (u * down).sum()
    residual = up - value * down
    error = ((residual * invert(residual)).sum().clamp(min=0) / (u * down).sum()).sqrt()
    return Estimate(value, "", error)
