"""Validators of attrs fields, whose messages name the field, the value and what was expected."""

import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

from fishr.errors import InputError

T = TypeVar("T")
Validator = Callable[[Any, Any, Any], None]


def whole(least: int, most: int | None = None) -> Validator:
    """Return a validator: a whole number of at least ``least``, at most ``most``; not True or 3.0."""

    def check(record: Any, attribute: Any, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least or (most and value > most):
            upper = f" and at most {most}" if most else ""
            raise InputError(f"{attribute.name}: got {value!r}, expected a whole number of at least {least}{upper}")

    return check


def number(least: float = 0.0, below: float = math.inf, above: bool = False) -> Validator:
    """Return a validator: a finite number of at least ``least`` (more with ``above``) and less than ``below``."""

    def check(record: Any, attribute: Any, value: Any) -> None:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not (value > least if above else value >= least) or not value < below:
            lower = f"greater than {least}" if above else f"of at least {least}"
            upper = "" if below == math.inf else f" and less than {below}"
            raise InputError(f"{attribute.name}: got {value!r}, expected a number {lower}{upper}")

    return check


def one_of(*choices: object) -> Any:
    """Return a validator: one of a few values."""

    def check(record: Any, attribute: Any, value: Any) -> None:
        if value not in choices:
            expected = " or ".join(map(repr, choices))
            raise InputError(f"{attribute.name}: got {value!r}, expected {expected}")

    return check


def distinct_names(record: Any, attribute: Any, names: tuple[str, ...] | None) -> None:
    """Refuse no names, and one that is repeated; None is allowed."""
    if names is not None and (not names or len(set(names)) < len(names)):
        raise InputError(f"{attribute.name}: got {names}, expected one or more names, once each")


def text_line(record: Any, attribute: Any, value: str) -> None:
    """Refuse an empty text, or one of several lines."""
    if not value.strip() or "\n" in value:
        raise InputError(f"{attribute.name}: got {value!r}, expected one line of text; name the experiment")


def layer_names(record: Any, attribute: Any, value: tuple[str, ...]) -> None:
    """Refuse no layers, or a text in place of several."""
    if not value or isinstance(value, str):
        raise InputError(f'{attribute.name}: got {value!r}, expected names of layers in a list, such as ["head"]')


def returned(name: str, found: object, expected: type[T]) -> T:
    """Return what a part of an experiment made; refuse another type, as a plugin may return."""
    if not isinstance(found, expected):
        raise InputError(f"{name}: got a {type(found).__name__} from its call, expected a {expected.__name__}")
    return found


def check_type(name: str, value: object, expected: type, remedy: str) -> None:
    """Refuse a value of another type, with a remedy."""
    if not isinstance(value, expected):
        raise InputError(f"{name}: got a {type(value).__qualname__}, expected a {expected.__qualname__}; {remedy}")


def nearest_layers(got: str, parameters: Iterable[str]) -> str:
    """Return, for a message, the layers and parameters with a name close to one that is unknown, or the first parts."""
    parts = [name.split(".") for name in parameters]
    known = dict.fromkeys(".".join(part[:end]) for part in parts for end in range(1, len(part) + 1))
    close = get_close_matches(got, known) or list(dict.fromkeys(part[0] for part in parts))
    return ", ".join(map(repr, close))


def near(name: str, known: Iterable[str]) -> str:
    """Return a question for the nearest known name, whatever its case, or nothing."""
    folded = {each.casefold(): each for each in known}
    close = get_close_matches(name.casefold(), folded, 1)
    return f" (did you mean {folded[close[0]]}?)" if close else ""
