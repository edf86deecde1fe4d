"""Rise of the risk around the head's parameters.

Sharpness often does not predict the error on other domains, and in several published settings predicts it inversely
(Andriushchenko et al. 2023, arXiv 2302.07011): something to report, not a score.
"""

import copy
from collections.abc import Callable
from functools import partial

import torch
from attrs import evolve
from torch import Tensor, nn

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.operators import repeated
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, joined_routes
from fishr.losses import BinaryCrossEntropy, per_sample_losses
from fishr.observation import Observation
from fishr.statistics.linear_heads import has_bias
from fishr.statistics.pure_forward import pure_forward

_NODES = (64, 48)


@diagnostic("loss", ("domain",), section="sharpness")
def sharpness_worst(curvature: Curvature, *, rho: float = 0.05, steps: int = 20, tolerance: float = 1e-6) -> Estimate:
    """max over ‖δ‖ ≤ ρ of R_e(θ + δ) − R_e(θ), from below: the best of several ascents.

    Meaning: largest rise of the risk within a ball of radius ρ that the ascents found. Large: some small change of
    the weights hurts this domain much.

    Each step goes to δ ← ρ∇R(θ + δ)/‖∇R(θ + δ)‖, which never lowers a convex risk. The ascents start along the gradient
    and both ways along the top eigenvector.

    Route: up to 20 gradients from each of 3 starts. Exact: never, a lower bound.

    Args:
        rho: ρ, parameter.
        steps: of each ascent, at most.
        tolerance: share of the rise that a step must change for the ascent to go on.

    Returns:
        [K], loss; a lower bound. The error is the gain of the last step alone.

    Source:
        Foret et al. 2021 (arXiv 2010.01412).
    """
    best, gains = list[Tensor](), list[Tensor]()
    for domain, top in enumerate(curvature.tops(1)):
        starts = [curvature.seen.moments.mean[domain], top.vectors[:, 0], -top.vectors[:, 0]]
        ascents = [_ascent(curvature, domain, start, rho, steps, tolerance) for start in starts]
        values = torch.stack([value for value, _ in ascents])
        best.append(values.max().clamp(min=0))
        gains.append(ascents[int(values.argmax())][1])
    route = f"ascent in up to {steps} steps from 3 starts, ρ={rho:g}: a lower bound, error: the last step's gain"
    return Estimate(torch.stack(best), route, torch.stack(gains))


def _ascent(
    curvature: Curvature, domain: int, start: Tensor, rho: float, steps: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return the largest rise on the way, and the gain of the last step."""
    risk = curvature.seen.domain_losses[domain]
    direction, reached, gain, last = start, *[torch.zeros_like(risk)] * 3
    for _ in range(steps):
        delta = (rho * direction / torch.linalg.vector_norm(direction).clamp(min=1e-30)).requires_grad_()
        with torch.enable_grad():
            rise = curvature.risk_at(domain, delta) - risk
            (direction,) = torch.autograd.grad(rise, [delta])
        curvature.passed()
        rise = rise.detach()
        gain, changed = (rise - reached).clamp(min=0), (rise - last).abs()
        reached, last = torch.maximum(reached, rise), rise
        if changed <= tolerance * rise.abs():
            break
    return reached, gain


@diagnostic("loss", ("domain",), section="sharpness")
def sharpness_average(curvature: Curvature, *, rho: float = 0.05) -> Estimate:
    """E R_e(θ + δ) − R_e(θ) over δ ~ N(0, ρ²) in each parameter, so that ‖δ‖ is about ρ√P.

    Meaning: mean rise of the risk under random noise of deviation ρ on each weight. Large: typical small changes of
    the weights hurt this domain.

    A linear head's logits then are f_n + ρ‖z̃_n‖ξ with ξ ~ N(0, 1) in each output, whatever P: one-dimensional integrals
    for a logistic loss, and few-dimensional draws otherwise. Where all parameters are of linear layers, the outputs of
    each are drawn in the same way, independently for each sample, which leaves the mean as it is and makes its error
    many times smaller. Any other head is evaluated at drawn parameters.

    Route: logits of a linear head by quadrature or draws, outputs of linear layers or parameters by draws. Exact:
    never, quadrature or draws with their error.

    Args:
        rho: ρ, parameter.

    Source:
        Kingma et al. 2015 (arXiv 1506.02557), on drawing outputs in the place of parameters.
    """
    if not curvature.linear:
        found = (_over_parameters if curvature.layered is None else _over_outputs)(curvature, rho)
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


def _over_outputs(curvature: Curvature, rho: float) -> Estimate:
    # In float32: draws are off by more than its rounding.
    seen, names = curvature.seen, set(curvature.layout.names)
    module, features = copy.deepcopy(curvature.head).float(), seen.features.float()
    noise, sign = dict[nn.Module, Tensor](), 1

    def disturb(layer: nn.Linear, inputs: tuple[Tensor], output: Tensor, weight: bool, bias: bool) -> Tensor:
        if layer not in noise:
            noise[layer] = torch.randn_like(output)
        spread = (weight * inputs[0].square().sum(1, keepdim=True) + bias).sqrt()
        return output + sign * rho * spread * noise[layer]

    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            trained = {kind: f"{name}.{kind}".lstrip(".") in names for kind in ("weight", "bias")}
            layer.register_forward_hook(partial(disturb, **trained))

    def draw() -> Tensor:
        nonlocal sign
        noise.clear()
        found = -seen.losses
        for sign in (1, -1):  # noqa: B007 (the hook reads it)
            with torch.no_grad():
                logits = pure_forward(module, features, {}).to(seen.logits)
            found = found + per_sample_losses(seen.loss, logits, seen.labels) / 2
            curvature.passed()
        return seen.domain_means(found)

    return _mean_of_draws(curvature, draw, "outputs of the linear layers", curvature.estimation.products)


def _over_parameters(curvature: Curvature, rho: float) -> Estimate:
    risks = curvature.seen.domain_losses

    def draw() -> Tensor:
        noise = rho * torch.randn(curvature.layout.size, dtype=risks.dtype, device=risks.device)
        curvature.passed()
        return (curvature.risks_at(noise) + curvature.risks_at(-noise)) / 2 - risks

    return _mean_of_draws(curvature, draw, "parameters")


def _mean_of_draws(curvature: Curvature, draw: Callable[[], Tensor], what: str, draws: int | None = None) -> Estimate:
    effort = curvature.estimation
    effort = evolve(effort, repeats=draws or effort.products * effort.repeats)
    return repeated(draw, curvature.seen.domain_losses, effort, f"pairs of opposite draws of the {what}")
