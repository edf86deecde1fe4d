"""Schedules: functions of the step that return the weight of a term, or a factor of the learning rate."""

from math import cos, isfinite, pi, prod
from typing import Protocol

from attrs import field, frozen

from fishr.errors import InputError


class Schedule(Protocol):
    """The weight of a term, or a factor of the learning rate, by the step: any function of one whole number.

    Example:
        >>> own: Schedule = lambda step: 0.9**step
        >>> own(1)
        0.9
    """

    def __call__(self, step: int, /) -> float:
        """Return the value at a step."""
        ...


def as_schedule(value: Schedule | float) -> Schedule:
    """Return a schedule as it is, a number as a constant one."""
    if callable(value):
        return value
    if isinstance(value, str) or not isfinite(value):
        raise InputError(f"schedule: got {value!r}, expected a finite number, or a function of the step")
    return Constant(float(value))


def _check_steps(_: object, attribute: object, steps: int) -> None:
    if steps < 1:
        raise InputError(f"steps: got {steps}, expected a whole number of at least 1")


@frozen
class Constant:
    """A constant value.

    Example:
        >>> Constant(3.0)(100)
        3.0
    """

    value: float  # value at every step

    def __call__(self, step: int) -> float:
        return self.value


@frozen
class StepSchedule:
    """``before`` until step ``at`` − 1, ``after`` from step ``at`` on: a warm-up.

    Example:
        >>> warmup = StepSchedule(at=190, before=1.0, after=91257.0)
        >>> warmup(189), warmup(190)
        (1.0, 91257.0)
    """

    at: int  # first step of ``after``
    before: float  # value before that step
    after: float  # value from that step on

    def __call__(self, step: int) -> float:
        return self.before if step < self.at else self.after


@frozen
class LinearSchedule:
    """Linear from ``start`` at step 0 to ``end`` at step ``steps``, then constant.

    Raises:
        InputError: fewer than 1 step.

    Example:
        >>> ramp = LinearSchedule(0.0, 10.0, steps=100)
        >>> ramp(0), ramp(50), ramp(100), ramp(1000)
        (0.0, 5.0, 10.0, 10.0)
    """

    start: float  # value at step 0
    end: float  # value from step ``steps`` on
    steps: int = field(validator=_check_steps)  # number of steps from one to the other

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.start * (1 - done) + self.end * done


@frozen
class CosineSchedule:
    """Half a cosine from ``start`` at step 0 to ``end`` at step ``steps``, then constant.

    Raises:
        InputError: fewer than 1 step.

    Example:
        >>> anneal = CosineSchedule(1.0, 0.0, steps=100)
        >>> anneal(0), round(anneal(50), 6), anneal(100)
        (1.0, 0.5, 0.0)
    """

    start: float  # value at step 0
    end: float  # value from step ``steps`` on
    steps: int = field(validator=_check_steps)  # number of steps from one to the other

    def __call__(self, step: int) -> float:
        left = (1 + cos(pi * min(step / self.steps, 1.0))) / 2
        return self.start * left + self.end * (1 - left)


@frozen
class Joined:
    """Several schedules in sequence; each counts steps from its own start.

    Args:
        schedules: in order.
        boundaries: steps at which the second, third, … start; increasing.

    Raises:
        InputError: the number of boundaries is not one less than that of schedules, or they do not increase.

    Example:
        >>> warm = Joined((Constant(0.0), LinearSchedule(0.0, 8.0, steps=4)), boundaries=(10,))
        >>> warm(9), warm(10), warm(11), warm(14)
        (0.0, 0.0, 2.0, 8.0)
    """

    schedules: tuple[Schedule, ...]
    boundaries: tuple[int, ...]

    def __attrs_post_init__(self) -> None:
        if len(self.boundaries) != len(self.schedules) - 1:
            raise InputError(
                f"boundaries: got {len(self.boundaries)} for {len(self.schedules)} schedules, expected one between two"
            )
        if list(self.boundaries) != sorted(set(self.boundaries)) or min(self.boundaries, default=1) < 1:
            raise InputError(f"boundaries: got {self.boundaries}, expected increasing steps of at least 1")

    def __call__(self, step: int) -> float:
        index = sum(step >= boundary for boundary in self.boundaries)
        return self.schedules[index](step - (0, *self.boundaries)[index])


@frozen
class Product:
    """The product of several schedules, each at the same step.

    Example:
        >>> Product((LinearSchedule(0.0, 1.0, steps=10), Constant(8.0)))(5)
        4.0
    """

    schedules: tuple[Schedule, ...]  # its factors

    def __call__(self, step: int) -> float:
        return prod(schedule(step) for schedule in self.schedules)
