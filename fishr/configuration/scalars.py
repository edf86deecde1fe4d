"""Strict scalars: a value is what it was declared to be, and is never made into it."""

import math
from pathlib import Path

from fishr.configuration.problems import listed, suggestion, unexpected


def boolean(value: object) -> bool:
    """Return a boolean as it is.

    Args:
        value: What was written.

    Returns:
        True or False.

    Raises:
        ConfigurationError: For everything else, ``"false"`` and ``0`` included.

    Example:
        >>> boolean(True)
        True
    """
    if not isinstance(value, bool):
        raise unexpected(value, "true or false")
    return value


def whole_number(value: object) -> int:
    """Return a whole number as it is.

    Args:
        value: What was written.

    Returns:
        The number.

    Raises:
        ConfigurationError: For everything else: ``"5000"``, ``5000.7``, ``5000.0`` and ``true`` included, and beyond
            64 bits.

    Example:
        >>> whole_number(5000)
        5000
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise unexpected(value, "a whole number")
    if not -(2**63) <= value < 2**63:
        raise unexpected(value, "a whole number of at most 64 bits")
    return value


def number(value: object) -> float:
    """Return a finite number; a whole number becomes a decimal one.

    Args:
        value: What was written.

    Returns:
        The number.

    Raises:
        ConfigurationError: For everything else: ``nan``, ``inf``, ``"1.0"`` and ``true`` included.

    Example:
        >>> number(1)
        1.0
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unexpected(value, "a number")
    try:
        result = float(value)
    except OverflowError:
        raise unexpected(value, "a number that is at most about 1.8e308") from None
    if not math.isfinite(result):
        raise unexpected(value, "a finite number")
    return result


def text(value: object) -> str:
    """Return a string as it is.

    Args:
        value: What was written.

    Returns:
        The string.

    Raises:
        ConfigurationError: For everything else, and for a string that no UTF-8 file or that no path can hold.

    Example:
        >>> text("digits")
        'digits'
    """
    if not isinstance(value, str):
        raise unexpected(value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise unexpected(value, "text that UTF-8 can encode") from None
    if "\0" in value:
        raise unexpected(value, "text without NUL characters")
    return value


def path(value: object) -> Path:
    """Return the path that a string names.

    Args:
        value: What was written.

    Returns:
        The path.

    Raises:
        ConfigurationError: For everything else, and for an empty string.

    Example:
        >>> path("features/train.h5").name
        'train.h5'
    """
    if not isinstance(value, str) or not text(value):
        raise unexpected(value, "a path (a string)")
    return Path(value)


def choice(value: object, choices: tuple[object, ...]) -> object:
    """Return one of some values as it is.

    Args:
        value: What was written.
        choices: What may be written.

    Returns:
        The value.

    Raises:
        ConfigurationError: When it is none of them; ``true`` is not ``1``.

    Example:
        >>> choice("sum", ("mean", "sum"))
        'sum'
    """
    for known in choices:
        if type(value) is type(known) and value == known:
            return known
    raise unexpected(value, one_of(choices) + suggestion(value, choices))


def one_of(choices: tuple[object, ...]) -> str:
    """Return what is expected where only some values may stand.

    Args:
        choices: What may be written.

    Returns:
        One line.

    Example:
        >>> print(one_of(("mean", "sum")))
        one of "mean", "sum"
    """
    return listed(choices) if len(choices) == 1 else f"one of {listed(choices)}"
