"""TOML files and overrides ``a.b.c=value``; each problem of a file is one error of one line."""

import copy
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import tomli_w

from fishr.configuration.families import KIND
from fishr.configuration.problems import ConfigurationError, Problem, described, flaw, quoted, text_value
from fishr.configuration.structure import structure
from fishr.configuration.unstructure import unstructure
from fishr.errors import reason

T = TypeVar("T")
toml_text = tomli_w.dumps  # scalars before tables, otherwise in the table's order
_PLACE = re.compile(r"(.*) \(at (line \d+, column \d+|end of document)\)", re.DOTALL)
# Everything up to the first "=" that is not inside quotes.
_KEY = re.compile(r"""((?:[^="'\r\n]|"(?:[^"\\\r\n]|\\.)*"|'[^'\r\n]*')*)=""")
_DEEPEST = 100


def load(path: Path | str, target: type[T], overrides: Iterable[str] = (), plugins: Iterable[str] = ()) -> T:
    """Return the object that a TOML file describes; the arguments are those of ``structure`` and ``apply_overrides``.

    Raises:
        ConfigurationError: The file cannot be read, or all problems of its table, after its name.

    Example:
        >>> import tempfile
        >>> from fishr.penalties import Fishr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "penalty.toml")
        ...     _ = file.write_text("ema = 0.9")
        ...     load(file, Fishr, overrides=["ema=0.95"]) == Fishr(ema=0.95)
        True
    """
    try:
        return structure(apply_overrides(read_toml(path), overrides), target, plugins)
    except ConfigurationError as error:
        raise ConfigurationError(error.problems, str(path)) from error


def dumps(obj: object) -> str:
    """Return an object as TOML, scalars before tables; equal objects give equal texts.

    Raises:
        ConfigurationError: All parts of the object that no file can hold.

    Example:
        >>> from fishr.penalties import Scaled, VREx
        >>> print(dumps(Scaled(VREx(form="pairwise"), 10.0)), end="")
        schedule = 10.0
        <BLANKLINE>
        [penalty]
        kind = "VREx"
        form = "pairwise"
    """
    return toml_text(unstructure(obj))


def read_toml(path: Path | str) -> dict[str, Any]:
    """Return the table that a TOML file holds."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise flaw("no such file") from None
    except IsADirectoryError:
        raise flaw("this is a directory, expected a TOML file") from None
    except (OSError, ValueError) as error:
        raise flaw(f"the file cannot be read: {reason(error)}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise flaw(f"line {line}: this is not UTF-8 text, save the file as UTF-8") from None
    return parse_toml(text)


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table that a TOML text describes; a syntax error has line and column."""
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


def apply_overrides(table: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a table with values set by texts ``a.b.c=value``, in order; missing tables on the way are made.

    The value is TOML; a text that is no TOML value is a string. A new ``kind`` starts an empty table, which keeps only
    the values that overrides set. Unknown keys are found by ``structure``.

    Raises:
        ConfigurationError: All overrides without ``=``, key or value, and those whose path leads through
            a value that is no table.

    Example:
        >>> apply_overrides({"objective": {"l2": 0.0}}, ["objective.l2=1e-3", "name=first"])
        {'objective': {'l2': 0.001}, 'name': 'first'}
        >>> apply_overrides({"head": {"kind": "LinearHead", "init": "torch"}}, ["head.kind=MLPHead"])
        {'head': {'kind': 'MLPHead'}}
    """
    changed, problems = copy.deepcopy(dict(table)), list[Problem]()
    parsed: list[tuple[tuple[str, ...], Any]] = []
    for override in overrides:
        try:
            parsed.append(parse_override(override))
        except ConfigurationError as error:
            problems += error.problems
    for (*above, key), value in parsed:
        inner: Any = changed
        for step in above:
            inner = inner.get(step) if isinstance(inner, dict) else None
        if key == KIND and isinstance(inner, dict) and inner.get(KIND) != value:
            cast(dict[str, Any], inner).clear()
    for keys, value in parsed:
        try:
            _set(changed, keys, value)
        except ConfigurationError as error:
            problems += error.problems
    if problems:
        raise ConfigurationError(problems)
    return changed


def parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    """Return the keys, from the root down, and the value of an override."""
    shown = text_value(override)
    match = _KEY.match(override)
    if match is None:
        raise flaw(f"the override {shown} has no =, expected KEY=VALUE such as seed=3")
    keys: list[str] = []
    too_deep = flaw(f"the override {shown} is nested too deeply")
    try:
        inner: Any = tomllib.loads(f"{match[1]} = 0")
        while isinstance(inner, dict):
            # A comment parses as an empty table.
            ((key, inner),) = cast(dict[str, Any], inner).items()
            keys.append(key)
    except ValueError:
        raise flaw(f"the override {shown} has no proper key, expected KEY=VALUE such as seed=3") from None
    # Python 3.14 reads keys of up to 1,000 parts.
    except RecursionError:
        raise too_deep from None
    if len(keys) > _DEEPEST:
        raise too_deep
    return tuple(keys), _value(override[match.end() :].strip(), ".".join(map(quoted, keys)))


def _value(text: str, path: str) -> Any:
    if not text:
        raise flaw('the override has no value; write "" for an empty string', path)
    try:
        parsed = tomllib.loads(f"value = {text}")
    # Beyond bad syntax: a number of thousands of digits, or brackets nested without end.
    except (ValueError, RecursionError):
        parsed = {}
    if list(parsed) == ["value"]:
        return parsed["value"]
    if text[0] in "\"'[{":
        raise flaw(
            f"{text_value(text)} starts like a TOML value and is none; check quotes and brackets, and "
            "in a shell write the whole override in single quotes",
            path,
        )
    return text


def _set(table: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for depth, key in enumerate(keys[:-1], 1):
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            path = ".".join(map(quoted, keys[:depth]))
            raise flaw(f"got {described(inner)}, which has no {quoted(keys[depth])}; set {path} itself", path)
        table = cast(dict[str, Any], inner)
    table[keys[-1]] = value
