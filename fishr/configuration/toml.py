"""Reading and writing TOML; whatever is wrong with a file is one error of one line."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

from fishr.configuration.overrides import apply_overrides
from fishr.configuration.problems import ConfigurationError, Problem, flaw
from fishr.configuration.structure import structure_with
from fishr.configuration.vocabulary import Vocabulary

T = TypeVar("T")
_PLACE = re.compile(r"(.*) \(at (line \d+, column \d+|end of document)\)", re.DOTALL)


def load_with(
    vocabulary: Vocabulary,
    path: Path | str,
    target: type[T],
    overrides: Iterable[str] = (),
    plugins: Iterable[str] = (),
) -> T:
    """Return the object that a TOML file describes, with the names of any vocabulary.

    Args:
        vocabulary: Which classes the file may name.
        path: The file.
        target: The class to build.
        overrides: Texts ``a.b.c=value``.
        plugins: Modules whose classes and functions the file may name.

    Returns:
        An object of the target.

    Raises:
        ConfigurationError: The file cannot be read, or all problems of what it says, after its name.
    """
    try:
        return structure_with(vocabulary, apply_overrides(read_toml(path), overrides), target, tuple(plugins))
    except ConfigurationError as error:
        raise ConfigurationError(error.problems, str(path)) from error


def read_toml(path: Path | str) -> dict[str, Any]:
    """Return the table that a TOML file holds.

    Args:
        path: The file.

    Returns:
        Tables, lists and scalars.

    Raises:
        ConfigurationError: The file cannot be read, is not UTF-8 or is not TOML.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise flaw("no such file") from None
    except IsADirectoryError:
        raise flaw("this is a directory, expected a TOML file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise flaw(f"the file cannot be read: {reason}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise flaw(f"line {line}: this is not UTF-8 text, save the file as UTF-8") from None
    return parse_toml(text)


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table that a TOML text describes.

    Args:
        text: The text.

    Returns:
        Tables, lists and scalars.

    Raises:
        ConfigurationError: The syntax is wrong; the message has line and column.

    Example:
        >>> parse_toml("steps = 300")
        {'steps': 300}
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.fullmatch(str(error))
        message, place = (found[1], found[2]) if found else (str(error), "")
        if place == "end of document":
            lines = text.split("\n")
            place = f"line {len(lines)}, column {len(lines[-1]) + 1}"
        raise ConfigurationError([Problem(place, f"this is no TOML: {message}")]) from None
    # Digits and brackets beyond what Python reads.
    except (ValueError, RecursionError) as error:
        raise flaw(f"this is no TOML that can be read: {error}") from None


def toml_text(table: Mapping[str, Any]) -> str:
    """Return a table as TOML: scalars before tables, otherwise in the table's order.

    Args:
        table: Tables, lists and scalars.

    Returns:
        The text.

    Example:
        >>> print(toml_text({"objective": {"l2": 0.1}, "steps": 300}), end="")
        steps = 300
        <BLANKLINE>
        [objective]
        l2 = 0.1
    """
    return tomli_w.dumps(table)
