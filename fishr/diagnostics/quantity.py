"""What a diagnostic returns: numbers that say what they are, how they were had and how far off they may be."""

from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class Quantity:
    """A measured quantity.

    Args:
        name: of the quantity, such as ``"variance_distances"``.
        value: the numbers, without graph.
        axes: the name of each axis of ``value``: ``"domain"``, ``"parameter"``, ``"rank"``; a 0-dim value has none.
        unit: such as ``"(loss/parameter)²"``; ``"1"`` for a pure number.
        route: how it was computed, with what was left out, projected or added on the way.
        error: estimate of the absolute error, of ``value``'s shape or broadcastable to it; None if the route is exact
            up to rounding. Twice the error covers the exact value in about 95 of 100 seeds where draws are random; of
            eigenvalues and what follows from them it is a bound.

    Example:
        >>> import torch
        >>> risks = Quantity("risk", torch.tensor([0.5, 0.7]), ("domain",), "loss", "mean over samples")
        >>> risks.value.shape, risks.error
        (torch.Size([2]), None)
    """

    name: str
    value: Tensor
    axes: tuple[str, ...]
    unit: str
    route: str
    error: Tensor | None = None
