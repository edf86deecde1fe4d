"""Exponential moving average of a statistic with explicit state; gradient flows through the newest value alone."""

from typing import Literal, get_args

import torch
from attrs import frozen
from torch import Tensor

from fishr.errors import InputError
from fishr.types import Problem

Gain = Literal["unit_gradient", "debiased", "none"]


@frozen(eq=False)
class Average:
    """State of a moving average.

    Args:
        value: [K, P], ṽ_t = γ ṽ_{t−1} + (1−γ) v_t, from ṽ_0 = 0; no graph.
        updates: t, number of values so far.
    """

    value: Tensor
    updates: int


@frozen
class MovingAverage:
    """v̂_t = ṽ_t / d_t with ṽ_t = γ ṽ_{t−1} + (1−γ) v_t and ṽ_0 = 0.

    The gain defines d_t: ``"unit_gradient"`` 1−γ, so that ∂v̂/∂v = 1 for any γ, while v̂ grows from v_1 to v/(1−γ);
    ``"debiased"`` 1−γ^t, so that v̂ is a weighted mean from the first step; ``"none"`` 1.

    Args:
        decay: γ, at least 0 and below 1.
        gain: the convention of d_t.

    Raises:
        InputError: a decay or gain out of range.

    Example:
        >>> average = MovingAverage(decay=0.5, gain="debiased")
        >>> state = Average(torch.zeros(1, 1), updates=0)
        >>> for value in (2.0, 8.0):
        ...     smoothed, state = average(torch.tensor([[value]]), state)
        >>> smoothed  # (0.25·2 + 0.5·8) / 0.75
        tensor([[6.]])

    Source:
        ``"unit_gradient"`` is DomainBed's convention for Fishr; ``"debiased"`` is Adam's (Kingma and Ba 2015).
    """

    decay: float
    gain: Gain = "unit_gradient"

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"decay: got {self.decay}, expected at least 0 and below 1")
        if self.gain not in get_args(Gain):
            raise InputError(f"gain: got {self.gain!r}, expected one of {', '.join(map(repr, get_args(Gain)))}")

    def init(self, problem: Problem) -> Average:
        """Return the first state, zeros."""
        return Average(problem.zeros(), 0)

    def divisor(self, update: int) -> float:
        """Return d_t for the t-th value, t from 1."""
        return {"unit_gradient": 1 - self.decay, "debiased": 1 - self.decay**update, "none": 1.0}[self.gain]

    def __call__(self, value: Tensor, state: Average) -> tuple[Tensor, Average]:
        """Return v̂ [K, P] with the newest value [K, P] in it, and the next state."""
        self.check(state, tuple(value.shape))
        average = torch.lerp(value, state.value, self.decay)
        return average / self.divisor(state.updates + 1), Average(average.detach(), state.updates + 1)

    def check(self, state: Average, shape: tuple[int, ...]) -> None:
        """Refuse a statistic whose shape is not the state's."""
        if shape != state.value.shape:
            raise InputError(
                f"moving average: got a statistic of shape {shape}, expected {tuple(state.value.shape)} "
                "as in the first step; the number of domains and the head must stay the same"
            )
