"""Problems of a configuration, each with its path, gathered into one error of one line."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, time
from difflib import get_close_matches
from typing import Any

from attrs import evolve, frozen

from fishr.errors import InputError, one_line

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 60  # characters of a value that a message repeats


@frozen
class Problem:
    """One problem on one line, and its path in the tree of tables."""

    path: str  # such as ``objective.penalty.fishr.schedule.at``; empty: the whole table
    message: str

    def under(self, step: str) -> "Problem":
        """Return the problem with a key, or an index such as ``[1]``, before its path."""
        separator = "." if self.path and not self.path.startswith("[") else ""
        return evolve(self, path=f"{step}{separator}{self.path}")

    def __str__(self) -> str:
        """Return the path and the message on one line."""
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigurationError(InputError):
    """A configuration cannot be used; every problem is listed, after the name of the file.

    Example:
        >>> raise ConfigurationError([Problem("steps", "missing, expected a whole number")], "run.toml")
        Traceback (most recent call last):
            ...
        fishr.configuration.problems.ConfigurationError: run.toml: steps: missing, expected a whole number
    """

    def __init__(self, problems: Iterable[Problem], source: str | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__(self.problems, source)

    def __str__(self) -> str:
        """Return all problems on one line, after the name of the file."""
        text = "; ".join(str(problem) for problem in self.problems)
        return text if self.source is None else f"{one_line(self.source)}: {text}"

    def under(self, step: str) -> list[Problem]:
        """Return the problems with a key or an index before their paths."""
        return [problem.under(step) for problem in self.problems]


def flaw(message: str, path: str = "") -> ConfigurationError:
    """Return the error of one problem."""
    return ConfigurationError([Problem(path, message)])


def unexpected(value: object, expected: str) -> ConfigurationError:
    """Return the error of a value that is not what was expected."""
    return flaw(f"got {described(value)}, expected {expected}")


def described(value: object) -> str:
    """Return a value and its type in TOML's words, on one short line."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() >= 200:
        return f"{value.bit_length()} bits (a whole number)"  # Python refuses to print thousands of digits
    for kinds, shown, words in _WORDS:
        if isinstance(value, kinds):
            return f"{shown(value)} ({words})" if shown else words
    name = value.__qualname__ if isinstance(value, type) else type(value).__qualname__
    return f"{'the class' if isinstance(value, type) else 'an object of class'} {one_line(name)}"


def text_value(text: str) -> str:
    """Return a string in quotes, shortened, with everything that is not printable escaped."""
    shown = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return one_line(json.dumps(shown, ensure_ascii=False))


def quoted(key: str) -> str:
    """Return a key as TOML writes it."""
    return key if _BARE_KEY.fullmatch(key) else text_value(key)


def listed(names: Iterable[object]) -> str:
    return ", ".join(text_value(name) if isinstance(name, str) else str(name).lower() for name in names)


def one_of(choices: Iterable[object]) -> str:
    names = list(choices)
    return listed(names) if len(names) == 1 else f"one of {listed(names)}"


def suggestion(got: object, names: Iterable[object]) -> str:
    """Return ``; did you mean "NAME"?`` for the closest name, whatever its case, or nothing when none is close."""
    if not isinstance(got, str):
        return ""
    known = [name for name in names if isinstance(name, str)]
    close = get_close_matches(got.casefold(), [name.casefold() for name in known], 1, 0.5)
    best = get_close_matches(got, [name for name in known if [name.casefold()] == close], 1, 0.0)
    return f"; did you mean {text_value(best[0])}?" if best else ""


_WORDS: tuple[tuple[Any, Callable[[Any], str] | None, str], ...] = (
    (bool, lambda value: str(value).lower(), "a boolean"),
    (int, str, "a whole number"),
    (float, lambda value: repr(float(value)), "a decimal number"),
    (str, text_value, "a string"),
    (date | time, lambda value: value.isoformat(), "a date or time"),
    ((list, tuple), None, "an array"),
    (Mapping, None, "a table"),
    (type(None), None, "nothing"),
)
