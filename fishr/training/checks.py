"""Validators of attrs fields whose messages are for people: name, what was got, what was expected."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from fishr.errors import InputError

T = TypeVar("T")
Validator = Callable[[Any, Any, Any], None]


def whole(least: int, most: int | None = None) -> Validator:
    """A whole number of at least ``least``, at most ``most``; True and 3.0 are none.

    Example:
        >>> from attrs import field, frozen
        >>> @frozen
        ... class Run:
        ...     steps: int = field(validator=whole(1))
        >>> Run(steps=0)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: steps: got 0, expected a whole number of at least 1
    """

    def check(record: Any, attribute: Any, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
            upper = f" and at most {most}" if most else ""
            raise InputError(f"{attribute.name}: got {value!r}, expected a whole number of at least {least}{upper}")

    return check


def number(least: float = 0.0, below: float = math.inf, above: bool = False) -> Validator:
    """A finite number of at least ``least`` (more than it with ``above``) and less than ``below``.

    Example:
        >>> from attrs import field, frozen
        >>> @frozen
        ... class Decay:
        ...     rate: float = field(validator=number(below=1.0))
        >>> Decay(rate=1.5)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: rate: got 1.5, expected a number of at least 0.0 and less than 1.0
    """

    def check(record: Any, attribute: Any, value: Any) -> None:
        if in_range(value):
            return
        lower = f"greater than {least}" if above else f"of at least {least}"
        upper = "" if below == math.inf else f" and less than {below}"
        raise InputError(f"{attribute.name}: got {value!r}, expected a number {lower}{upper}")

    def in_range(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return (value > least if above else value >= least) and value < below

    return check


def one_of(*choices: str) -> Validator:
    """One of a few words.

    Example:
        >>> from attrs import field, frozen
        >>> @frozen
        ... class Run:
        ...     precision: str = field(validator=one_of("fp32", "bf16"))
        >>> Run(precision="fp8")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: precision: got 'fp8', expected 'fp32' or 'bf16'
    """

    def check(record: Any, attribute: Any, value: Any) -> None:
        if value not in choices:
            expected = " or ".join(map(repr, choices))
            raise InputError(f"{attribute.name}: got {value!r}, expected {expected}")

    return check


def text_line(record: Any, attribute: Any, value: str) -> None:
    """Refuse an empty text, or one of several lines."""
    if not value.strip() or "\n" in value:
        raise InputError(f"{attribute.name}: got {value!r}, expected one line of text; name the experiment")


def layer_names(record: Any, attribute: Any, value: tuple[str, ...]) -> None:
    """Refuse no layers, or a text in place of several."""
    if not value or isinstance(value, str):
        raise InputError(f'{attribute.name}: got {value!r}, expected names of layers, such as "featurizer" or "head"')


def returned(name: str, found: object, expected: type[T]) -> T:
    """Return what a part of an experiment made; refuse another type, as a plugin may return."""
    if not isinstance(found, expected):
        raise InputError(f"{name}: got a {type(found).__name__} from its call, expected a {expected.__name__}")
    return found
