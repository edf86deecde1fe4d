"""Problems of a configuration, each with its path, gathered into one error of one line."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from difflib import SequenceMatcher

from attrs import evolve, frozen

from fishr.errors import InputError, one_line

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST = 60  # characters of a value that a message repeats


@frozen
class Problem:
    """One problem and its path in the tree of tables.

    Args:
        path: Dotted keys and indices, such as ``objective.penalty.fishr.schedule.at``; empty for the whole table.
        message: The value, what was expected and what to do, on one line.

    Example:
        >>> print(Problem("at", "missing, expected a whole number").under("schedule"))
        schedule.at: missing, expected a whole number
    """

    path: str
    message: str

    def under(self, step: str) -> "Problem":
        """Return the problem with a key, or an index such as ``[1]``, before its path."""
        separator = "." if self.path and not self.path.startswith("[") else ""
        return evolve(self, path=f"{step}{separator}{self.path}")

    def __str__(self) -> str:
        """Return the path and the message on one line."""
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigurationError(InputError):
    """A configuration cannot be used; every problem is listed.

    Args:
        problems: All problems, in the order of the table.
        source: Name of the file.

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
    match value:
        case bool():
            return f"{str(value).lower()} (a boolean)"
        case int():
            # Python refuses to print whole numbers of thousands of digits.
            shown = str(value) if value.bit_length() < 200 else f"{value.bit_length()} bits"
            return f"{shown} (a whole number)"
        case float():
            return f"{float(value)!r} (a decimal number)"
        case str():
            return f"{text_value(value)} (a string)"
        case date() | datetime() | time():
            return f"{value.isoformat()} (a date or time)"
        case list() | tuple():
            return "an array"
        case Mapping():
            return "a table"
        case None:
            return "nothing"
        case type():
            return f"the class {one_line(value.__qualname__)}"
        case _:
            return f"an object of class {one_line(type(value).__qualname__)}"


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
    """Return ``; did you mean "NAME"?`` for the closest name, or nothing when none is close."""
    if not isinstance(got, str):
        return ""

    def likeness(name: str) -> tuple[float, float]:
        """Return how alike the names are whatever their case, and then with it."""
        folded = SequenceMatcher(None, got.casefold(), name.casefold()).ratio()
        return folded, SequenceMatcher(None, got, name).ratio()

    near = {name: likeness(name) for name in names if isinstance(name, str)}
    best = max(near, key=lambda name: near[name], default="")
    return f"; did you mean {text_value(best)}?" if near and near[best] >= (0.5, 0.0) else ""
