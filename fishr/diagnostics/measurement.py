"""All quantities of a head on several domains in one go, intermediates shared."""

from collections.abc import Callable, Collection
from functools import partial

from torch import Tensor, nn

from fishr.diagnostics.agreement import gradient_cosines, gradient_products, gradient_spread, sign_agreement
from fishr.diagnostics.curvature import effective_rank, hessian_diagonal, hessian_trace, top_eigenvalues
from fishr.diagnostics.fisher import fisher_diagonal
from fishr.diagnostics.gradients import (
    accuracy,
    empirical_fisher_diagonal,
    gradient_norm,
    gradient_variance,
    noise_scale,
    risk,
    signal_to_noise,
    total_noise,
)
from fishr.diagnostics.inspection import Inspection
from fishr.diagnostics.mismatch import (
    covariance_distances,
    hessian_cosines,
    hessian_diagonal_distance_scale_free,
    hessian_diagonal_distances,
    hessian_distances,
    variance_distance,
    variance_distance_scale_free,
    variance_distances,
)
from fishr.diagnostics.operators import Estimation
from fishr.diagnostics.overlap import eigenspace_overlaps, hessian_mean_gap
from fishr.diagnostics.proxies import covariance_hessian_cosine, variance_hessian_cosine, variance_hessian_error
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.second_order import (
    inconsistency_diagonal_proxy,
    inconsistency_second_order,
    inconsistency_second_order_pairs,
)
from fishr.diagnostics.sharpness import sharpness_average, sharpness_quadratic, sharpness_worst
from fishr.diagnostics.takeuchi import takeuchi, takeuchi_diagonal
from fishr.diagnostics.transfer import transfer, transfer_second_order
from fishr.errors import InputError
from fishr.grad_mode import outside_inference_mode
from fishr.losses import CrossEntropy, Loss
from fishr.statistics.moments import Route


def _calls(
    rank: int, rho: float, eta: float, epsilon: float, ridge: float
) -> dict[str, Callable[[Inspection], Quantity]]:
    return {
        "risk": risk.of,
        "accuracy": accuracy.of,
        "gradient_norm": gradient_norm.of,
        "gradient_variance": gradient_variance.of,
        "total_noise": total_noise.of,
        "signal_to_noise": signal_to_noise.of,
        "noise_scale": noise_scale.of,
        "empirical_fisher_diagonal": empirical_fisher_diagonal.of,
        "fisher_diagonal": fisher_diagonal.of,
        "hessian_diagonal": hessian_diagonal.of,
        "hessian_trace": hessian_trace.of,
        "top_eigenvalues": partial(top_eigenvalues.of, rank=rank),
        "effective_rank": effective_rank.of,
        "takeuchi": partial(takeuchi.of, ridge=ridge),
        "takeuchi_diagonal": partial(takeuchi_diagonal.of, ridge=ridge),
        "variance_hessian_cosine": variance_hessian_cosine.of,
        "variance_hessian_error": variance_hessian_error.of,
        "covariance_hessian_cosine": covariance_hessian_cosine.of,
        "sharpness_worst": partial(sharpness_worst.of, rho=rho),
        "sharpness_average": partial(sharpness_average.of, rho=rho),
        "sharpness_quadratic": partial(sharpness_quadratic.of, rho=rho),
        "variance_distance": variance_distance.of,
        "variance_distances": variance_distances.of,
        "variance_distance_scale_free": variance_distance_scale_free.of,
        "covariance_distances": covariance_distances.of,
        "hessian_diagonal_distances": hessian_diagonal_distances.of,
        "hessian_diagonal_distance_scale_free": hessian_diagonal_distance_scale_free.of,
        "hessian_distances": hessian_distances.of,
        "hessian_cosines": hessian_cosines.of,
        "gradient_cosines": gradient_cosines.of,
        "gradient_products": gradient_products.of,
        "gradient_spread": gradient_spread.of,
        "sign_agreement": sign_agreement.of,
        "transfer": partial(transfer.of, eta=eta),
        "transfer_second_order": partial(transfer_second_order.of, eta=eta),
        "inconsistency_second_order": partial(inconsistency_second_order.of, epsilon=epsilon, ridge=ridge),
        "inconsistency_second_order_pairs": partial(inconsistency_second_order_pairs.of, epsilon=epsilon, ridge=ridge),
        "inconsistency_diagonal_proxy": partial(inconsistency_diagonal_proxy.of, epsilon=epsilon, ridge=ridge),
        "eigenspace_overlaps": partial(eigenspace_overlaps.of, rank=rank),
        "hessian_mean_gap": hessian_mean_gap.of,
    }


NAMES: tuple[str, ...] = tuple(_calls(1, 1.0, 1.0, 1.0, 1.0))


@outside_inference_mode()
def measure(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    *,
    names: Collection[str] | None = None,
    rank: int = 5,
    rho: float = 0.05,
    eta: float = 0.1,
    epsilon: float = 0.1,
    ridge: float = 1e-3,
    seed: int = 0,
    route: Route = "auto",
) -> dict[str, Quantity]:
    """The quantities of a head on several domains, each by the cheapest exact route or with the error it may have.

    What is too large for its route is not left out: its value is NaN and its route says why.

    Args:
        head: in eval mode; its trainable parameters are what everything is taken by.
        features: [N, ...] what the head reads, ordered by domain.
        labels: what the loss reads.
        sizes: samples of each domain, summing to N.
        loss: per-sample, unscaled.
        names: of the quantities; by default all of ``NAMES``.
        rank: eigenvalues and eigenvectors of each domain.
        rho: radius or deviation of the sharpness, parameter.
        eta: step of the transfer, parameter²/loss.
        epsilon: rise of the risk that an inconsistency allows, loss.
        ridge: added to what is inverted, as a share of its largest eigenvalue or entry.
        seed: of what is estimated from random draws.
        route: how moments of gradients are computed, see ``gradient_moments``.

    Returns:
        Quantities by name, in the order of ``NAMES``.

    Raises:
        InputError: an unknown name, sizes that do not fit, or a head that none of this can be measured of.

    Example:
        >>> import torch
        >>> head, features, labels = nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> found = measure(head, features, labels, sizes=(2, 3), names=("risk", "hessian_trace"))
        >>> {name: quantity.unit for name, quantity in found.items()}
        {'risk': 'loss', 'hessian_trace': 'loss/parameter²'}
    """
    calls = _calls(rank, rho, eta, epsilon, ridge)
    if unknown := sorted(set(names or ()) - set(calls)):
        raise InputError(f"names: got {', '.join(unknown)}, expected some of {', '.join(calls)}")
    seen = Inspection(head, features, labels, sizes, loss, Estimation(seed=seed), route)
    return {name: call(seen) for name, call in calls.items() if names is None or name in names}
