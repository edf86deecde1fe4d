"""Rise of the risk around the head's parameters.

Sharpness often does not predict the error on other domains, and in several published settings predicts it inversely
(Andriushchenko et al. 2023, arXiv 2302.07011): something to report, not a score.
"""

from collections.abc import Callable

import torch
from attrs import evolve
from torch import Tensor

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.operators import repeated
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, joined_routes
from fishr.losses import BinaryCrossEntropy, per_sample_losses
from fishr.observation import Observation
from fishr.statistics.linear_head import has_bias

_NODES = (64, 48)


@diagnostic("loss", ("domain",), section="sharpness")
def sharpness_worst(curvature: Curvature, *, rho: float = 0.05, steps: int = 20) -> Estimate:
    """max over ‖δ‖ ≤ ρ of R_e(θ + δ) − R_e(θ), from below: the best of several ascents.

    Meaning: largest rise of the risk within a ball of radius ρ that the ascents found. Large: some small change of
    the weights hurts this domain much.

    Each step goes to δ ← ρ∇R(θ + δ)/‖∇R(θ + δ)‖, which never lowers a convex risk. The ascents start along the gradient
    and both ways along the top eigenvector.

    Route: 20 gradients from each of 3 starts. Exact: never, a lower bound.

    Args:
        rho: ρ, parameter.
        steps: of each ascent.

    Returns:
        [K], loss; a lower bound. The error is the gain of the last step alone.

    Source:
        Foret et al. 2021 (arXiv 2010.01412).
    """
    best, gains = list[Tensor](), list[Tensor]()
    for domain, top in enumerate(curvature.tops(1)):
        starts = [curvature.seen.moments.mean[domain], top.vectors[:, 0], -top.vectors[:, 0]]
        ascents = [_ascent(curvature, domain, start, rho, steps) for start in starts]
        values = torch.stack([value for value, _ in ascents])
        best.append(values.max().clamp(min=0))
        gains.append(ascents[int(values.argmax())][1])
    route = f"ascent in {steps} steps from 3 starts, ρ={rho:g}: a lower bound, error: the last step's gain"
    return Estimate(torch.stack(best), route, torch.stack(gains))


def _ascent(curvature: Curvature, domain: int, start: Tensor, rho: float, steps: int) -> tuple[Tensor, Tensor]:
    """Return the largest rise on the way, and the gain of the last step."""
    risk = curvature.seen.domain_losses[domain]
    direction, reached, gain = start, torch.zeros_like(risk), torch.zeros_like(risk)
    for _ in range(steps):
        delta = (rho * direction / torch.linalg.vector_norm(direction).clamp(min=1e-30)).requires_grad_()
        with torch.enable_grad():
            rise = curvature.risk_at(domain, delta) - risk
            (direction,) = torch.autograd.grad(rise, [delta])
        curvature.passed()
        gain = (rise.detach() - reached).clamp(min=0)
        reached = torch.maximum(reached, rise.detach())
    return reached, gain


@diagnostic("loss", ("domain",), section="sharpness")
def sharpness_average(curvature: Curvature, *, rho: float = 0.05) -> Estimate:
    """E R_e(θ + δ) − R_e(θ) over δ ~ N(0, ρ²) in each parameter, so that ‖δ‖ is about ρ√P.

    Meaning: mean rise of the risk under random noise of deviation ρ on each weight. Large: typical small changes of
    the weights hurt this domain.

    A linear head's logits then are f_n + ρ‖z̃_n‖ξ with ξ ~ N(0, 1) in each output, whatever P: one-dimensional integrals
    for a logistic loss, and few-dimensional draws otherwise. Any other head is evaluated at drawn parameters.

    Route: logits of a linear head by quadrature or draws, parameters by draws. Exact: never, quadrature or draws with
    their error.

    Args:
        rho: ρ, parameter.
    """
    if not curvature.linear:
        found = _over_parameters(curvature, rho)
    elif type(curvature.seen.loss) is BinaryCrossEntropy:
        found = _by_quadrature(curvature.seen, rho)
    else:
        found = _over_logits(curvature, rho)
    return Estimate(found.value, f"{found.route}, ρ={rho:g}", found.error)


@diagnostic("loss", ("domain",), section="sharpness")
def sharpness_quadratic(curvature: Curvature, *, rho: float = 0.05) -> Estimate:
    """½ρ²λ_max(H_e), the worst rise to second order where the gradient vanishes.

    Meaning: largest rise within radius ρ that the curvature alone predicts. Large: the most curved direction is
    steep.

    Route: the top eigenvalue. Exact: as top_eigenvalues.

    Args:
        rho: ρ, parameter.
    """
    found = curvature.tops(1)
    value = torch.stack([pairs.values[0] for pairs in found]) * rho**2 / 2
    error = torch.stack([pairs.residuals[0] for pairs in found]) * rho**2 / 2
    return Estimate(value, f"{joined_routes(pairs.route for pairs in found)}, ρ={rho:g}", error)


def _spreads(seen: Observation, rho: float) -> Tensor:
    """Return ρ‖z̃_n‖ [N], the deviation of each logit of a linear head."""
    return rho * (seen.features.square().sum(1) + float(has_bias(seen.head))).sqrt()


def _by_quadrature(seen: Observation, rho: float) -> Estimate:
    from numpy.polynomial.hermite_e import hermegauss

    spreads, found = _spreads(seen, rho).unsqueeze(1), list[Tensor]()
    for count in _NODES:
        nodes, weights = hermegauss(count)
        rises = torch.zeros_like(seen.losses)
        # The outputs enter the loss as a sum, so that one variable for all of them gives the mean of that sum.
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            rises += float(weight) * per_sample_losses(seen.loss, seen.logits + float(node) * spreads, seen.labels)
        found.append(seen.domain_means(rises - seen.losses))
    route = f"Gauss-Hermite with {_NODES[0]} nodes, error: the difference from {_NODES[1]} nodes"
    return Estimate(found[0], route, (found[0] - found[1]).abs())


def _over_logits(curvature: Curvature, rho: float) -> Estimate:
    seen, spreads = curvature.seen, _spreads(curvature.seen, rho).unsqueeze(1)

    def draw() -> Tensor:
        noise = spreads * torch.randn_like(seen.logits)
        ahead, behind = (per_sample_losses(seen.loss, seen.logits + s * noise, seen.labels) for s in (1, -1))
        return seen.domain_means((ahead + behind) / 2 - seen.losses)

    return _mean_of_draws(curvature, draw, "logits of a linear head")


def _over_parameters(curvature: Curvature, rho: float) -> Estimate:
    risks = curvature.seen.domain_losses

    def draw() -> Tensor:
        noise = rho * torch.randn(curvature.layout.size, dtype=risks.dtype, device=risks.device)
        curvature.passed()
        return (curvature.risks_at(noise) + curvature.risks_at(-noise)) / 2 - risks

    return _mean_of_draws(curvature, draw, "parameters")


def _mean_of_draws(curvature: Curvature, draw: Callable[[], Tensor], what: str) -> Estimate:
    effort = curvature.estimation
    effort = evolve(effort, repeats=effort.products * effort.repeats)
    return repeated(draw, curvature.seen.domain_losses, effort, f"pairs of opposite draws of the {what}")
