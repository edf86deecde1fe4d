"""Exponential moving average of a statistic with explicit state; gradient flows through the newest value alone."""

from typing import Literal, get_args

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.types import Problem

Gain = Literal["unit_gradient", "debiased", "none"]
Present = tuple[int, ...]


@traceable
@frozen(eq=False)
class Average:
    """State of a moving average.

    Args:
        value: [K, P], ṽ_t = γ ṽ_{t−1} + (1−γ) v_t, from ṽ_0 = 0; no graph.
        updates: number of values so far.
        missed: how many of these had no row for each of the K domains; None: none for any.
    """

    value: Tensor
    updates: int
    missed: tuple[int, ...] | None = None

    def on(self, device: torch.device) -> "Average":
        """Return the state on a device."""
        return self if self.value.device == device else evolve(self, value=self.value.to(device))

    def rows(self, present: Present) -> Tensor:
        """Return the values of the domains present."""
        return self.value if len(present) == len(self.value) else self.value[list(present)]

    def counts(self, present: Present) -> tuple[int, ...]:
        """Return t of each domain present, the number of its own values so far."""
        return tuple(self.updates - (self.missed[k] if self.missed else 0) for k in present)

    def updated(self, rows: Tensor, present: Present) -> "Average":
        """Return the next state, with new values of the domains present; those of the others stay."""
        if len(present) == len(self.value):
            return Average(rows, self.updates + 1, self.missed)
        value = self.value.index_copy(0, torch.tensor(present, device=rows.device), rows)
        missed = self.missed or (0,) * len(value)
        return Average(value, self.updates + 1, tuple(n + (k not in present) for k, n in enumerate(missed)))


@traceable
@frozen
class MovingAverage:
    """v̂_t = ṽ_t / d_t with ṽ_t = γ ṽ_{t−1} + (1−γ) v_t and ṽ_0 = 0.

    The gain defines d_t: ``"unit_gradient"`` 1−γ, so that ∂v̂/∂v = 1 for any γ, while v̂ grows from v_1 to v/(1−γ);
    ``"debiased"`` 1−γ^t, so that v̂ is a weighted mean from the first step; ``"none"`` 1.

    Each domain has its own average: where it is missing from a batch, neither its ṽ nor its t changes. A call
    ``average(value, state, present)`` then takes and returns a row for each of the domains present.

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
        # A tensor is the decay of one head of several under vmap, in float64.
        if not isinstance(self.decay, Tensor) and not 0 <= self.decay < 1:
            raise InputError(f"decay: got {self.decay}, expected at least 0 and below 1")
        if self.gain not in get_args(Gain):
            raise InputError(f"gain: got {self.gain!r}, expected one of {', '.join(map(repr, get_args(Gain)))}")

    def init(self, problem: Problem) -> Average:
        """Return the first state, zeros."""
        return Average(problem.zeros(), 0)

    def divisor(self, update: int) -> float:
        """Return d_t for the t-th value, t from 1."""
        return {"unit_gradient": 1 - self.decay, "debiased": 1 - self.decay**update, "none": 1.0}[self.gain]

    def divisors(self, state: Average, present: Present) -> tuple[float, ...]:
        """Return d_t of the next value of each domain present, or one for all of them."""
        if self.gain != "debiased" or state.missed is None:
            return (self.divisor(state.updates + 1),)
        return tuple(self.divisor(count + 1) for count in state.counts(present))

    def __call__(self, value: Tensor, state: Average, present: Present | None = None) -> tuple[Tensor, Average]:
        """Return v̂ with the newest value [K, P] in it, or [rows of ``present``, P], and the next state."""
        present = tuple(range(len(state.value))) if present is None else present
        fits = len(value) == len(present) and max(present) < len(state.value)
        self.check(state, (len(state.value) if fits else len(value), *value.shape[1:]))
        decay = self.decay.to(value.dtype) if isinstance(self.decay, Tensor) else self.decay
        average = torch.lerp(value, state.rows(present), decay)
        divisors = self.divisors(state, present)
        divisor = divisors[0] if len(divisors) == 1 else average.new_tensor(divisors).unsqueeze(1)
        return average / divisor, state.updated(average.detach(), present)

    def check(self, state: Average, shape: tuple[int, ...]) -> None:
        """Refuse a statistic whose shape is not the state's."""
        if shape != state.value.shape:
            raise InputError(
                f"moving average: got a statistic of shape {shape}, expected {tuple(state.value.shape)} "
                "as in the first step; the head and the number of domains must stay the same, also for a batch that "
                "lacks some of them (a size of 0, or number= of DomainBatch.of)"
            )
