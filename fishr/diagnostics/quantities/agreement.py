"""Agreement of the domains' gradients, and the effect of a step for one domain on the others."""

import torch

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate
from fishr.observation import Observation

_MEANS = "mean gradient of each domain"
_PAIRS = ("domain", "domain")


@diagnostic("1", _PAIRS, section="agreement", headline="cosine of the gradients")
def gradient_cosines(seen: Observation) -> Estimate:
    """cos(g_A, g_B) for every pair of domains; NaN where a gradient is exactly zero.

    Meaning: cosine of the angle between the gradients of two domains. Large: at 1 a step for one domain also serves
    the other; below 0 they conflict.

    Route: mean gradient of each domain. Exact: always.
    """
    units = seen.moments.mean / torch.linalg.vector_norm(seen.moments.mean, dim=1, keepdim=True)
    return Estimate(units @ units.T, _MEANS)


@diagnostic("(loss/parameter)²", _PAIRS, section="agreement")
def gradient_products(seen: Observation) -> Estimate:
    """g_A·g_B for every pair of domains, which Fish maximizes.

    Meaning: inner product of the gradients of two domains, which counts length as well as angle. Large: a step for
    one domain lowers the risk of the other.

    Route: mean gradient of each domain. Exact: always.

    Source:
        Shi et al. 2021 (arXiv 2104.09937).
    """
    return Estimate(seen.moments.mean @ seen.moments.mean.T, _MEANS)


@diagnostic("(loss/parameter)²", section="agreement")
def gradient_spread(seen: Observation) -> Estimate:
    """Σ_e ‖g_e − ḡ‖², the IGA penalty.

    Meaning: how far the domains' mean gradients are from each other. Large: the domains ask for different steps.

    Route: mean gradient of each domain. Exact: always.

    Source:
        Koyama and Yamaguchi 2020 (arXiv 2008.01883).
    """
    means = seen.moments.mean
    return Estimate((means - means.mean(0)).square().sum(), _MEANS)


@diagnostic("1", section="agreement", headline="share of parameters whose gradients agree in sign")
def sign_agreement(seen: Observation) -> Estimate:
    """Share of parameters whose sign(g_e) is equal in all domains and not zero, the AND-mask's share.

    Meaning: share of parameters that all domains want to move in the same direction. Large: at 1 all domains agree
    on every parameter; chance is 2^(1 − K).

    Route: mean gradient of each domain. Exact: always.

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329).
    """
    agreed = seen.moments.mean.sign().sum(0).abs() == seen.domains
    return Estimate(agreed.to(seen.losses.dtype).mean(), _MEANS)


@diagnostic("loss", _PAIRS, section="agreement")
def transfer(curvature: Curvature, *, eta: float = 0.1) -> Estimate:
    """R_B(θ − η g_A) − R_B(θ) in row A, column B: below zero where A's step helps B.

    Meaning: change of one domain's risk after a gradient step on another. Large: above zero the step for A hurts B.

    Route: one forward pass a domain. Exact: always.

    Args:
        eta: η, parameter²/loss.
    """
    seen = curvature.seen
    with torch.no_grad():
        rows = [curvature.risks_at(-eta * gradient) - seen.domain_losses for gradient in seen.moments.mean]
    return Estimate(torch.stack(rows), f"risks after the step, η={eta:g}")


@diagnostic("loss", _PAIRS, section="agreement")
def transfer_second_order(curvature: Curvature, *, eta: float = 0.1) -> Estimate:
    """−η g_A·g_B + ½η² g_AᵀH_B g_A, which is ``transfer`` to second order in η.

    Meaning: change of one domain's risk after a gradient step on another, as gradients and curvature predict it.
    Large: as for transfer; a difference from it shows terms of higher order.

    Route: one Hessian-vector product a pair. Exact: always.

    Args:
        eta: η, parameter²/loss.
    """
    means = curvature.seen.moments.mean
    curved = [(means.T * hessian.apply(means.T)).sum(0) for hessian in curvature.hessians]
    value = -eta * (means @ means.T) + eta**2 / 2 * torch.stack(curved, 1)
    return Estimate(value, f"gradients and Hessian products, η={eta:g}")
