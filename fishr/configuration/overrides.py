"""Changes to a table from the command line: ``a.b.c=value``."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, cast

from fishr.configuration.problems import ConfigurationError, Problem, described, flaw, quoted, text_value
from fishr.configuration.vocabulary import KIND

# Everything up to the first "=" that is not inside quotes.
_KEY = re.compile(r"""((?:[^="'\r\n]|"(?:[^"\\\r\n]|\\.)*"|'[^'\r\n]*')*)=""")


def apply_overrides(table: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of a table with some values set; tables that are missing on the way are made.

    A new ``kind`` begins its table anew: of what stood there only the values that overrides set are kept.

    Args:
        table: What a TOML file holds; it stays as it is.
        overrides: Texts ``a.b.c=value``, applied in their order. The value is TOML; a text that is no TOML value
            is a string.

    Returns:
        The new table. Whether its keys are known is for ``structure`` to say.

    Raises:
        ConfigurationError: All overrides without ``=``, key or value, and those whose path leads through
            something that is no table.

    Example:
        >>> apply_overrides({"objective": {"l2": 0.0}}, ["objective.l2=1e-3", "name=first"])
        {'objective': {'l2': 0.001}, 'name': 'first'}
        >>> apply_overrides({"head": {"kind": "LinearHead", "init": "torch"}}, ["head.kind=MLPHead"])
        {'head': {'kind': 'MLPHead'}}
    """
    changed = dict(table)
    problems: list[Problem] = []
    given: set[tuple[str, ...]] = set()
    for override in overrides:
        try:
            keys, value = parse_override(override)
            if keys[-1] == KIND:
                changed = _begun_anew(changed, keys[:-1], value, given)
            changed = _with(changed, keys, value, ())
            given.add(keys)
        except ConfigurationError as error:
            problems += error.problems
        except RecursionError:
            problems.append(Problem("", f"the override {text_value(override)} is nested too deeply"))
    if problems:
        raise ConfigurationError(problems)
    return changed


def parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    """Return the keys and the value of one override.

    Args:
        override: A text ``a.b.c=value``.

    Returns:
        The keys from the root down, and the value.

    Raises:
        ConfigurationError: It has no ``=``, no proper key or no proper value.

    Example:
        >>> parse_override("penalty.schedule.after=300")
        (('penalty', 'schedule', 'after'), 300)
    """
    shown = text_value(override)
    match = _KEY.match(override)
    if match is None:
        raise flaw(f"the override {shown} has no =, expected KEY=VALUE such as seed=3")
    keys: list[str] = []
    try:
        inner: Any = tomllib.loads(f"{match[1]} = 0")
    except tomllib.TOMLDecodeError:
        raise flaw(f"the override {shown} has no proper key, expected KEY=VALUE such as seed=3") from None
    while isinstance(inner, dict):
        ((key, inner),) = cast(dict[str, Any], inner).items()
        keys.append(key)
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
        raise flaw(f"{text_value(text)} starts like a TOML value and is none; check quotes and brackets", path)
    return text


def _with(table: Mapping[str, Any], keys: tuple[str, ...], value: Any, above: tuple[str, ...]) -> dict[str, Any]:
    key, below = keys[0], keys[1:]
    if not below:
        return {**table, key: value}
    inner = table.get(key, {})
    here = (*above, key)
    if not isinstance(inner, Mapping):
        path = ".".join(map(quoted, here))
        raise flaw(f"got {described(inner)}, which has no {quoted(below[0])}; set {path} itself", path)
    return {**table, key: _with(cast(Mapping[str, Any], inner), below, value, here)}


def _begun_anew(
    table: Mapping[str, Any], keys: tuple[str, ...], kind: Any, given: set[tuple[str, ...]], above: tuple[str, ...] = ()
) -> dict[str, Any]:
    if keys:
        inner, here = table.get(keys[0]), (*above, keys[0])
        if not isinstance(inner, Mapping):
            return dict(table)
        return {**table, keys[0]: _begun_anew(cast(Mapping[str, Any], inner), keys[1:], kind, given, here)}
    if table.get(KIND) == kind:
        return dict(table)
    kept = {path[len(above)] for path in given if len(path) > len(above) and path[: len(above)] == above}
    return {key: value for key, value in table.items() if key in kept}
