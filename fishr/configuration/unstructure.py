"""Frozen objects to tables, which are read back as equal objects."""

import inspect
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast, get_args, get_origin

import attrs

from fishr.configuration.declared_types import (
    alternatives,
    family_of,
    is_array,
    is_flat,
    is_mapping,
    is_record,
    settings,
)
from fishr.configuration.families import FAMILIES, KIND, Family, plugin_name
from fishr.configuration.problems import ConfigurationError, Problem, described, flaw, quoted, unexpected
from fishr.configuration.scalars import read_scalar
from fishr.configuration.structure import structure


def unstructure(obj: object, families: tuple[Family, ...] = FAMILIES) -> dict[str, Any]:
    """Return the table that describes an object, in the order of its fields; those that are None are left out.

    Raises:
        ConfigurationError: All parts of the object that no file can hold, such as a lambda.

    Example:
        >>> from fishr.penalties import Scaled, Total, VREx
        >>> unstructure(Total(rex=Scaled(VREx(form="pairwise"), 10.0)))
        {'rex': {'kind': 'Scaled', 'penalty': {'kind': 'VREx', 'form': 'pairwise'}, 'schedule': 10.0}}
    """
    if not is_record(type(obj)):
        raise unexpected(obj, "an object of a frozen attrs class")
    table = _written(obj, type(obj), families)
    # Reading the table back finds, with its path, whatever a file cannot hold.
    problems = list(_differences(obj, structure(table, type(obj), None, families)))
    if problems:
        raise ConfigurationError(problems)
    return table


def _written(value: Any, declared: Any, families: tuple[Family, ...]) -> Any:
    """Return what describes a value; what does not fit the declared type is found when it is read back."""
    cls = cast(type[Any], type(value))
    declared = next((one for one in alternatives(declared) if cls in (one, get_origin(one))), alternatives(declared)[0])
    family = family_of(declared, families)
    if family is not None:
        return _written_member(value, family, families)
    if isinstance(value, int) and declared is float:
        return read_scalar(value, float) if type(value) is int else value
    if isinstance(value, Path):
        return value.as_posix()
    if is_array(declared) and isinstance(value, tuple):
        items = get_args(declared)
        items = items[:1] * len(value) if items[-1] is ... else items
        return [_written(one, item, families) for one, item in zip_longest(value, items[: len(value)])]
    if is_mapping(declared) and isinstance(value, Mapping):
        return {key: _written(one, get_args(declared)[1], families) for key, one in value.items()}
    if not is_record(cls) or cls is not declared:
        return value
    held = {key: (getattr(value, one.name), one.type) for key, one in settings(cls).items()}
    if is_flat(cls):
        return _written(*next(iter(held.values())), families)
    return {key: _written(*one, families) for key, one in held.items() if one[0] is not None}


def _written_member(value: Any, family: Family, families: tuple[Family, ...]) -> Any:
    """Return a member's table with its kind, or the error that reading it back raises."""
    cls, named = cast(type[Any], type(value)), cast(Any, type(value))
    if cls is family.exported(family.wrapper):
        named = getattr(value, attrs.fields(cls)[0].name)
    elif inspect.isfunction(value) and not family.wrapper:
        named = value
    elif not is_record(cls):
        return value
    try:
        if cls is family.exported(family.number):
            return read_scalar(attrs.astuple(value)[0], float)
        kind = cls.__name__ if family.builtin(cls.__name__) is cls else plugin_name(named)
        if kind in family.switch:
            return family.switch.index(kind) == 1
        if ":" in kind:
            family.check(named, kind)
        table = _written(value, cls, families) if named is cls else {}
        if KIND in table:
            raise flaw(f"the key {KIND} names the class, so nothing else can be called {KIND}")
    except ConfigurationError as error:
        return error
    return table if kind == family.implied else {KIND: kind, **table}


def _differences(given: Any, read: Any) -> Iterator[Problem]:
    """Find the parts of an object that are read back as something else."""
    below: list[tuple[str, Any, Any]] = []
    if type(given) is type(read) and is_record(type(given)):
        below = [(key, *(getattr(x, one.name) for x in (given, read))) for key, one in settings(type(given)).items()]
    elif isinstance(given, tuple) and isinstance(read, tuple):
        below = [(f"[{index}]", *pair) for index, pair in enumerate(zip(given, read, strict=True))]
    elif isinstance(given, Mapping) and isinstance(read, Mapping):
        below = [(quoted(key), given[key], read[key]) for key in given]
    elif given is None and read is not None:
        yield Problem("", "None cannot be written, for a key that is left out means the default")
    elif given != read or (type(given) is not type(read) and not isinstance(read, float)):
        yield Problem("", f"got {described(given)}, expected a {type(read).__name__}: it is read back as one")
    for step, one, other in below:
        yield from (problem.under(step) for problem in _differences(one, other))
