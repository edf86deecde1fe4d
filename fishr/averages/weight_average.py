"""The protocol of averages of weights."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

# Weights, and weights whose buffers a pass starts from, to these buffers after a pass of the step's batch.
Through = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Tensor]]


class WeightAverage(Protocol):
    """An average of the weights that a run passes through, evaluated in their place; training does not depend on it.

    ``weights`` are tensors by name: the parameters that are trained, and the buffers of floating point, such as the
    running statistics of batch normalization. No method changes its arguments. A state is a tree of tensors, numbers,
    strings, None, tuples, lists, dicts with string keys and frozen attrs records.

    A class may have ``evaluated(state, scores, step)``, which returns the next state: at each evaluation it reads the
    scores of the weights themselves, a ``DomainScore`` for each domain. A resumed run calls it once more with the same
    arguments, which must change nothing.

    A class may have ``check(domains)``, which is called before the first step and raises InputError for data that it
    cannot be used with.

    A class may have ``passed(state, before, through)``, which returns the next state: after each update it may run the
    step's batch through weights in training mode. ``before`` is the state before the update.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class Last:
        ...     def init(self, weights):
        ...         return ()
        ...     def update(self, weights, state, step):
        ...         return state
        ...     def weights(self, state, weights):
        ...         return weights
        >>> average: WeightAverage = Last()
    """

    def init(self, weights: dict[str, Tensor], /) -> Any:
        """Return the state before the first update."""
        ...

    def update(self, weights: dict[str, Tensor], state: Any, step: int, /) -> Any:
        """Return the state after ``step`` updates, which have led to ``weights``."""
        ...

    def weights(self, state: Any, weights: dict[str, Tensor], /) -> dict[str, Tensor]:
        """Return the weights to evaluate, by the names of the current ones."""
        ...
