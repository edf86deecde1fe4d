"""Hyper-parameters: a default and a random draw each."""

from collections.abc import Callable, Sequence

from attrs import frozen
from numpy.random import RandomState

Value = bool | int | float | str  # in this order: a whole number of a file stays one
Draw = Callable[[RandomState], Value]


@frozen
class Range:
    """A hyper-parameter: its default, for hparams_seed 0, and its random draw.

    Example:
        >>> Range(0.95, uniform(0.90, 0.99)).default
        0.95
    """

    default: Value
    draw: Draw


def uniform(low: float, high: float) -> Draw:
    return lambda generator: generator.uniform(low, high)


def power(low: float, high: float, base: float = 10) -> Draw:
    """Draw base^U(low, high)."""
    return lambda generator: base ** generator.uniform(low, high)


def whole(draw: Draw) -> Draw:
    return lambda generator: int(draw(generator))


def choice(values: Sequence[Value]) -> Draw:
    return lambda generator: generator.choice(values)


def fixed(value: Value) -> Range:
    return Range(value, lambda generator: value)
