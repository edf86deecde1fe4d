"""SMA: the mean of the weights of all updates from one on."""

from attrs import field, frozen
from torch import Tensor

from fishr.averages.weight_average import Through
from fishr.checks import whole
from fishr.tensor_trees import each


def between(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return start + share · (end − start), by the names of the end."""
    found = each._foreach_lerp([start[name] for name in end], [*end.values()], share)
    return dict(zip(end, found, strict=True))


@frozen(eq=False)
class Mean:
    """A mean of weights and the number of them; before the first one it is that of the initial weights."""

    count: int
    weights: dict[str, Tensor]

    def including(self, weights: dict[str, Tensor], count: int = 1) -> "Mean":
        """Return the mean of these weights too, of which ``count`` are the mean."""
        if not self.count:
            return Mean(count, weights)
        total = self.count + count
        return Mean(total, between(self.weights, weights, count / total))


@frozen
class SMA:
    """w̄ = mean of the weights after ``start``, ``start`` + 1, …, t updates; before, the weights themselves.

    Weights and average have the unit of the parameters. ERM++ averages from update 600 on, the weights before it
    included: ``start = 599``.

    Args:
        start: Updates made before the first weights of the mean; 0 includes the initial ones.
        own_statistics: Run each batch through the averaged weights too, for one more forward pass a step, so that the
            running statistics of batch normalization are those of its own features, as in ERM++; else they are
            averaged like weights.

    Raises:
        InputError: ``start`` is negative.

    Example:
        >>> import torch
        >>> average, weights = SMA(start=0), {"w": torch.tensor([1.0])}
        >>> state = average.update({"w": torch.tensor([4.0])}, average.init(weights), step=1)
        >>> average.weights(state, weights)
        {'w': tensor([2.5000])}

    Source: Arpit et al., Ensemble of averages, NeurIPS 2022 (arXiv 2110.10832), which starts at 100.
    """

    start: int = field(default=100, validator=whole(0))
    own_statistics: bool = False

    def init(self, weights: dict[str, Tensor]) -> Mean:
        """Return the mean of the first weights alone."""
        return Mean(1, weights)

    def update(self, weights: dict[str, Tensor], state: Mean, step: int) -> Mean:
        """Return the mean after ``step`` updates."""
        return Mean(1, weights) if step <= self.start else state.including(weights)

    def passed(self, state: Mean, before: Mean, through: Through) -> Mean:
        """Return the state with the running statistics of the averaged weights, moved on from those ``before``."""
        if not self.own_statistics:
            return state
        return Mean(state.count, state.weights | through(state.weights, before.weights))

    def weights(self, state: Mean, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean."""
        return state.weights
