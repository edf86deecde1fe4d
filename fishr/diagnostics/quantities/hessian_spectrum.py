"""Diagonal, trace, eigenvalues, spectral density and effective rank of each domain's Hessian H_e = ∇²R_e."""

from math import log

import torch
from torch import Tensor

from fishr.diagnostics.curvature import OUTSTANDING, Curvature
from fishr.diagnostics.krylov import lanczos_quadratures
from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.diagnostics.range_space import whole_if_small
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, averaged, jackknife, joined_routes
from fishr.seeding import seeded

_MARGIN = 0.05
_KAPPA = 3.0


@diagnostic("loss/parameter²", ("domain", "parameter"), section="curvature", scopes=("head", "network"))
def hessian_diagonal(curvature: Curvature) -> Estimate:
    """diag H_e of each domain.

    Meaning: curvature of the domain's risk along each parameter. Large: the risk rises steeply when this parameter
    moves; below zero it bends down.

    Route: closed form (linear layers with ReLU), BackPACK DiagHessian, whole matrix, curvlinops XDiag. Exact: linear
    heads, chains of BackPACK's layers, up to 2048 parameters.
    """
    return curvature.hessian_diagonals


@diagnostic("loss/parameter²", ("domain",), section="curvature", scopes=("head", "network"))
def hessian_trace(curvature: Curvature) -> Estimate:
    """tr H_e of each domain.

    Meaning: sum of all eigenvalues of the Hessian, the total curvature. Large: the risk rises quickly in many
    directions, or very quickly in a few.

    Route: sum of the diagonal, curvlinops XTrace. Exact: as hessian_diagonal.
    """
    return curvature.hessian_traces


@diagnostic("loss/parameter²", ("domain", "rank"), section="curvature", scopes=("head", "network"))
def top_eigenvalues(curvature: Curvature, *, rank: int = 5) -> Estimate:
    """The largest eigenvalues of H_e, largest first.

    Meaning: curvature along the most curved directions. Large: the risk is sharp along these directions; above
    2/learning rate, plain gradient descent is unstable.

    Route: eigh in the span of the features or of the whole matrix, scipy eigsh on products. Exact: up to the residuals,
    in large heads at most ``tolerance`` times the largest eigenvalue.

    Args:
        rank: how many; fewer where the matrix is smaller.

    Returns:
        [K, rank], loss/parameter²; the error is the residual norm ‖Hu − λu‖.
    """
    found = curvature.tops(rank)
    shared = min(len(pairs.values) for pairs in found)
    values = torch.stack([pairs.values[:shared] for pairs in found])
    residuals = torch.stack([pairs.residuals[:shared] for pairs in found])
    return Estimate(values, joined_routes(pairs.route for pairs in found), residuals)


@diagnostic(
    "loss/parameter² and parameter²/loss",
    ("domain", "eigenvalue and density", "point"),
    section="curvature",
    scopes=("network",),
)
def spectral_density(curvature: Curvature, *, points: int = 256) -> Estimate:
    """p(λ) = (1/P) Σ_i N(λ; λ_i, σ²) with σ a small part of the spectrum's width, zeros included.

    Meaning: share of eigenvalues of the Hessian near each value. Large: many directions have this curvature; most
    of the density of a network is near zero.

    Route: all eigenvalues, stochastic Lanczos quadrature beside the top eigenvalues. Exact: up to 2048 parameters, up
    to the smoothing.

    Args:
        points: of the grid, which spans each domain's spectrum and a margin.

    Returns:
        [K, 2, points]: λ, loss/parameter², and the density at it, parameter²/loss.

    Source:
        Papyan 2020 (JMLR 21, 20-933), algorithm 2.
    """
    found = [_density(curvature, domain, points) for domain in range(curvature.seen.domains)]
    errors = [each.error for each in found if each.error is not None]
    route = joined_routes(each.route for each in found)
    return Estimate(torch.stack([each.value for each in found]), route, torch.stack(errors) if errors else None)


@diagnostic("1", ("domain",), section="curvature", scopes=("head", "network"))
def effective_rank(curvature: Curvature) -> Estimate:
    """(tr H_e)²/‖H_e‖_F²: how many equal eigenvalues would give the same trace and norm.

    Meaning: number of directions that carry the curvature. Large: curvature is spread over many directions instead
    of a few.

    Route: trace and Frobenius norm. Exact: linear heads, up to 2048 parameters.
    """
    trace, norm = curvature.hessian_traces, curvature.squared_norms
    return jackknife(lambda t, n: t.square() / n, trace, norm, route=f"trace: {trace.route}; norm: {norm.route}")


def _density(curvature: Curvature, domain: int, points: int) -> Estimate:
    """Return grid and density of one Hessian, [2, points]."""
    hessian, estimation = curvature.hessians[domain], curvature.estimation
    lanczos = 2 * estimation.products
    if (matrix := whole_if_small(hessian)) is not None:
        values = torch.linalg.eigvalsh(matrix)
        return Estimate(_smoothed(values, points, lanczos), "all eigenvalues, smoothed")
    # The largest eigenvalues are known; random starts in the space without them see all others.
    tops, like = curvature.tops(OUTSTANDING)[domain], hessian.like
    share, count = len(tops.values) / hessian.size, max(2, estimation.repeats // 2)
    with seeded(estimation.seed, like.device):
        drawn = torch.randn(hessian.size, count, dtype=like.dtype, device=like.device)
    drawn = drawn - tops.vectors @ (tops.vectors.T @ drawn)
    product = hessian.rounded if isinstance(hessian, OperatorHessian) else hessian.apply
    # All starts advance together, in products of several columns.
    nodes, weights = lanczos_quadratures(product, drawn / torch.linalg.vector_norm(drawn, dim=0), lanczos)
    nodes = torch.cat([nodes, tops.values.expand(count, -1)], 1)
    weights = torch.cat([(1 - share) * weights, torch.full_like(nodes[:, lanczos:], 1 / hessian.size)], 1)
    # The outermost nodes are the spectrum's ends, long before the inner ones are eigenvalues.
    ends = torch.stack([nodes.min(), nodes.max()])
    densities = [_smoothed(own, points, lanczos, weight, ends) for own, weight in zip(nodes, weights, strict=True)]
    route = f"Lanczos quadrature from {count} starts, {lanczos} products each, beside the {len(tops.values)} largest"
    return averaged(torch.stack(densities), f"{route}, seed {estimation.seed}")


def _smoothed(
    values: Tensor, points: int, lanczos: int, weights: Tensor | None = None, ends: Tensor | None = None
) -> Tensor:
    """Return grid and density, [2, points]; the width of the Gaussians follows from the spectrum's width."""
    low, high = (values[0], values[-1]) if ends is None else ends.unbind()
    # A spectrum of a single value still needs a width.
    padding = torch.maximum(_MARGIN * (high - low), _MARGIN * values.abs().max() + torch.finfo(values.dtype).tiny)
    steps = torch.linspace(0, 1, points, dtype=values.dtype, device=values.device)
    grid = low - padding + (high - low + 2 * padding) * steps
    sigma = (high - low + 2 * padding) / (lanczos - 1) / (8 * log(_KAPPA)) ** 0.5
    bumps = torch.distributions.Normal(values.unsqueeze(1), sigma).log_prob(grid).exp()
    return torch.stack([grid, bumps.mean(0) if weights is None else weights @ bumps])
