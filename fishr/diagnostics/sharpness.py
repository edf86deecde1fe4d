"""How much the risk rises around the head: row 11 of what is looked at.

Sharpness often does not predict the error on other domains, and in several published settings predicts it inversely
(Andriushchenko et al. 2023, arXiv 2302.07011): something to report, not a score.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fishr.diagnostics.displacement import risks_at
from fishr.diagnostics.hessian import Estimate
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.operators import seeded
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.sampling import averaged
from fishr.losses import BinaryCrossEntropy, per_sample_losses
from fishr.statistics.linear_head import has_bias

_NODES = (64, 48)


@of_head
def sharpness_worst(seen: Inspection, *, rho: float = 0.05, steps: int = 20) -> Quantity:
    """max over ‖δ‖ ≤ ρ of R_e(θ + δ) − R_e(θ), from below: the best of several ascents.

    Each goes to the point of the ball that the gradient names, δ ← ρ∇R(θ + δ)/‖∇R(θ + δ)‖, which never falls for a
    convex risk. They start along the gradient and both ways along the top eigenvector.

    Args:
        seen: the head and its data.
        rho: ρ, parameter.
        steps: of each ascent.

    Returns:
        [K], loss; a lower bound. The error is the gain of the last step alone.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool((sharpness_worst(head, *data).value >= 0).all())
        True

    Source:
        Foret et al. 2021 (arXiv 2010.01412).
    """
    best, gains = list[Tensor](), list[Tensor]()
    for domain, top in enumerate(seen.tops(1)):
        starts = [seen.moments.mean[domain], top.vectors[:, 0], -top.vectors[:, 0]]
        ascents = [_ascent(seen, domain, start, rho, steps) for start in starts]
        values = torch.stack([value for value, _ in ascents])
        best.append(values.max().clamp(min=0))
        gains.append(ascents[int(values.argmax())][1])
    route = f"ascent in {steps} steps from 3 starts, ρ={rho:g}: a lower bound, error: the last step's gain"
    return Quantity("sharpness_worst", torch.stack(best), ("domain",), "loss", route, torch.stack(gains))


def _ascent(seen: Inspection, domain: int, start: Tensor, rho: float, steps: int) -> tuple[Tensor, Tensor]:
    """The largest rise on the way, and what the last step added to it."""
    direction, reached, gain = start, torch.zeros_like(seen.risks[domain]), torch.zeros_like(seen.risks[domain])
    for _ in range(steps):
        delta = (rho * direction / torch.linalg.vector_norm(direction).clamp(min=1e-30)).requires_grad_()
        with torch.enable_grad():
            rise = risks_at(seen, delta)[domain] - seen.risks[domain]
            (direction,) = torch.autograd.grad(rise, [delta])
        gain = (rise.detach() - reached).clamp(min=0)
        reached = torch.maximum(reached, rise.detach())
    return reached, gain


@of_head
def sharpness_average(seen: Inspection, *, rho: float = 0.05) -> Quantity:
    """E R_e(θ + δ) − R_e(θ) over δ ~ N(0, ρ²) in each parameter, so that ‖δ‖ is about ρ√P.

    A linear head's logits then are f_n + ρ‖z̃_n‖ξ with ξ ~ N(0, 1) in each output, whatever P: one-dimensional integrals
    for a logistic loss, and few-dimensional draws otherwise. Any other head is evaluated at drawn parameters.

    Args:
        seen: the head and its data.
        rho: ρ, parameter.

    Returns:
        [K], loss.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool((sharpness_average(head, *data, rho=0.5).value > 0).all())
        True
    """
    if not seen.linear:
        found = _over_parameters(seen, rho)
    elif type(seen.loss) is BinaryCrossEntropy:
        found = _by_quadrature(seen, rho)
    else:
        found = _over_logits(seen, rho)
    return Quantity("sharpness_average", found.value, ("domain",), "loss", f"{found.route}, ρ={rho:g}", found.error)


@of_head
def sharpness_quadratic(seen: Inspection, *, rho: float = 0.05) -> Quantity:
    """½ρ²λ_max(H_e), the worst rise to second order where the gradient vanishes.

    Args:
        seen: the head and its data.
        rho: ρ, parameter.

    Returns:
        [K], loss.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> sharpness_quadratic(head, *data).value.shape
        torch.Size([2])
    """
    found = seen.tops(1)
    value = torch.stack([pairs.values[0] for pairs in found]) * rho**2 / 2
    error = torch.stack([pairs.residuals[0] for pairs in found]) * rho**2 / 2
    route = "; ".join(dict.fromkeys(pairs.route for pairs in found))
    return Quantity("sharpness_quadratic", value, ("domain",), "loss", f"{route}, ρ={rho:g}", error)


def _spreads(seen: Inspection, rho: float) -> Tensor:
    """[N], ρ‖z̃_n‖: the deviation of each logit of a linear head."""
    squares = torch.cat([features.square().sum(1) for features in seen.domain_features])
    return rho * (squares + float(has_bias(seen.head))).sqrt()


def _by_quadrature(seen: Inspection, rho: float) -> Estimate:
    from numpy.polynomial.hermite_e import hermegauss

    spreads, found = _spreads(seen, rho).unsqueeze(1), list[Tensor]()
    for count in _NODES:
        nodes, weights = hermegauss(count)
        rises = torch.zeros_like(seen.losses)
        # The outputs enter the loss as a sum, so that one variable for all of them gives the mean of that sum.
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            rises += float(weight) * per_sample_losses(seen.loss, seen.logits + float(node) * spreads, seen.labels)
        found.append(torch.stack([part.mean() for part in (rises - seen.losses).split(list(seen.sizes))]))
    route = f"Gauss-Hermite with {_NODES[0]} nodes, error: the difference from {_NODES[1]} nodes"
    return Estimate(found[0], route, (found[0] - found[1]).abs())


def _over_logits(seen: Inspection, rho: float) -> Estimate:
    spreads = _spreads(seen, rho).unsqueeze(1)

    def draw() -> Tensor:
        noise = spreads * torch.randn_like(seen.logits)
        ahead, behind = (per_sample_losses(seen.loss, seen.logits + s * noise, seen.labels) for s in (1, -1))
        rises = (ahead + behind) / 2 - seen.losses
        return torch.stack([part.mean() for part in rises.split(list(seen.sizes))])

    return _mean_of_draws(seen, draw, "logits of a linear head")


def _over_parameters(seen: Inspection, rho: float) -> Estimate:
    def draw() -> Tensor:
        noise = rho * torch.randn(seen.layout.size, dtype=seen.risks.dtype, device=seen.risks.device)
        return (risks_at(seen, noise) + risks_at(seen, -noise)) / 2 - seen.risks

    return _mean_of_draws(seen, draw, "parameters")


def _mean_of_draws(seen: Inspection, draw: Callable[[], Tensor], what: str) -> Estimate:
    count = seen.estimation.products * seen.estimation.repeats
    with torch.no_grad(), seeded(seen.risks, seen.estimation.seed):
        drawn = torch.stack([draw() for _ in range(count)])
    return averaged(drawn, f"pairs of opposite draws of the {what}, seed {seen.estimation.seed}")
