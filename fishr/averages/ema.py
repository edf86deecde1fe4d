"""EMA: the exponential moving average of the weights."""

from attrs import field, frozen
from torch import Tensor

from fishr.averages.sma import between
from fishr.checks import number, whole


@frozen
class EMA:
    """w̄ ← decay · w̄ + (1 − decay) · w after each update; the weights themselves until ``start`` updates are made.

    Weights and average have the unit of the parameters. The average is not corrected for its beginning: it starts at
    the weights after ``start`` updates.

    Args:
        decay: From 0 to less than 1; 0.999 remembers about 1,000 updates.
        start: Updates before the average begins, at least 0.

    Raises:
        InputError: A number outside its range.

    Example:
        >>> import torch
        >>> average, weights = EMA(decay=0.75), {"w": torch.tensor([4.0])}
        >>> state = average.update({"w": torch.tensor([8.0])}, average.init(weights), step=1)
        >>> average.weights(state, weights)
        {'w': tensor([5.])}

    Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992, with exponential weights.
    """

    decay: float = field(default=0.999, validator=number(below=1.0))
    start: int = field(default=0, validator=whole(0))

    def init(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the first weights."""
        return weights

    def update(self, weights: dict[str, Tensor], state: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the average after ``step`` updates."""
        if step <= self.start:
            return weights
        return between(state, weights, 1 - self.decay)

    def weights(self, state: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the average."""
        return state
