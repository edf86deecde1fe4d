"""Measure all diagnostics of a head, or of a whole network, with shared intermediates."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from torch import Tensor, nn

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.registry import Entry, diagnostics
from fishr.diagnostics.uncertainty import Estimation, Quantity
from fishr.errors import InputError
from fishr.grad_mode import outside_inference_mode
from fishr.losses import CrossEntropy, Loss
from fishr.statistics.moments import Route


@outside_inference_mode()
def measure(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    *,
    names: Collection[str] | None = None,
    training: int | None = None,
    rank: int = 5,
    rho: float = 0.05,
    eta: float = 0.1,
    epsilon: float = 0.1,
    ridge: float = 1e-3,
    seed: int = 0,
    tolerance: float = 1e-3,
    route: Route = "auto",
    progress: Callable[[str], object] = lambda name: None,
) -> dict[str, Quantity]:
    """Return the quantities of a head on several domains, each by its cheapest exact route or with its error.

    Quantities that are too large for their route are NaN, with the reason in the route.

    Args:
        head: in eval mode; derivatives are by its trainable parameters.
        features: [N, ...] what the head reads, ordered by domain.
        sizes: samples of each domain, summing to N.
        names: of the quantities; by default all of ``NAMES``.
        training: domains, the first ones, that a quantity of several domains together is of; by default all.
        rank: eigenvalues and eigenvectors of each domain.
        rho: radius or deviation of the sharpness, parameter.
        eta: step of the transfer, parameter²/loss.
        epsilon: rise of the risk that an inconsistency allows, loss.
        ridge: added to what is inverted, as a share of its largest eigenvalue or entry.
        tolerance: of the residuals of eigenvalues of large heads, as a share of the largest.
        route: of the moments of gradients, see ``gradient_moments``.
        progress: called with the name of a quantity when its turn comes and, for large heads, after each pass.

    Returns:
        Quantities by name, in the order of ``NAMES``.

    Raises:
        InputError: an unknown name, sizes that do not fit, or a head that cannot be measured.

    Example:
        >>> import torch
        >>> head, features, labels = nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> found = measure(head, features, labels, sizes=(2, 3), names=("risk", "hessian_trace"))
        >>> {name: quantity.unit for name, quantity in found.items()}
        {'risk': 'loss', 'hessian_trace': 'loss/parameter²'}
    """
    known = diagnostics("head")
    if unknown := sorted(set(names or ()) - set(known)):
        raise InputError(f"names: got {', '.join(unknown)}, expected some of {', '.join(known)}")
    chosen = {name: entry for name, entry in known.items() if names is None or name in names}
    opened = partial(
        Curvature.of, head, features, labels, sizes, loss, Estimation(seed=seed, tolerance=tolerance), route
    )
    return _measured(chosen, opened, training, progress, rank=rank, rho=rho, eta=eta, epsilon=epsilon, ridge=ridge)


@outside_inference_mode()
def measure_network(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    *,
    rank: int = 5,
    ridge: float = 1e-3,
    estimation: Estimation = Estimation(),  # noqa: B008 (immutable)
    progress: Callable[[str], object] = lambda name: None,
) -> dict[str, Quantity]:
    """Return the quantities of a whole network, or of any module, over all its trainable parameters.

    Up to 2048 parameters they are exact; beyond, estimates with their standard errors, eigenvalues of scipy with their
    residuals, and exact diagonals for linear layers with ReLU and for chains of BackPACK's layers.

    Args:
        module: from inputs to logits, in eval mode; all trainable parameters of one type.
        inputs: [N, ...] ordered by domain.
        sizes: samples of each domain, summing to N.
        rank: eigenvalues of each domain.
        ridge: of the Takeuchi criterion, as a share of the largest eigenvalue.
        progress: as for ``measure``.

    Raises:
        InputError: sizes that do not fit, or layers in train mode that mix samples or draw at random.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> found = measure_network(network, torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1]), (2, 4), rank=2)
        >>> found["top_eigenvalues"].value.shape
        torch.Size([2, 2])
    """
    opened = partial(Curvature.of, module, inputs, labels, sizes, loss, estimation, "auto")
    return _measured(diagnostics("network"), opened, None, progress, rank=rank, ridge=ridge)


def _measured(
    entries: dict[str, Entry],
    opened: Callable[[Callable[[], object]], Curvature],
    training: int | None,
    progress: Callable[[str], object],
    **options: Any,
) -> dict[str, Quantity]:
    at, found = "", dict[str, Quantity]()
    curvature = opened(lambda: progress(at))
    together = curvature if training in (None, curvature.seen.domains) else curvature.first(training)
    for at, entry in entries.items():
        progress(at)
        view = curvature if "domain" in entry.axes else together
        found[at] = entry.function.of(view, **{key: v for key, v in options.items() if key in entry.options})
    return found
