"""Types that fields declare: which kind of type each is, and what a file should hold there."""

import inspect
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from fishr.configuration.families import Family
from fishr.configuration.problems import flaw, one_of
from fishr.errors import one_line

# How a file writes each scalar type.
SCALARS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path (a string)",
}


def family_of(declared: Any, families: tuple[Family, ...]) -> Family | None:
    return next((family for family in families if family.protocol is declared), None)


@cache
def alternatives(declared: object) -> tuple[Any, ...]:
    """Return the members of a union without None, or the type alone when it is no union."""
    members = get_args(declared) if is_union(declared) else (declared,)
    return tuple(member for member in members if member is not type(None))


def is_union(declared: object) -> bool:
    return get_origin(declared) in (Union, types.UnionType)


def is_optional(declared: object) -> bool:
    return is_union(declared) and type(None) in get_args(declared)


def is_record(declared: Any) -> bool:
    return isinstance(declared, type) and attrs.has(declared)


def is_array(declared: object) -> bool:
    return get_origin(declared) is tuple


def is_mapping(declared: object) -> bool:
    """Return whether a type is a table of free keys, such as ``dict[str, int]``."""
    return get_origin(declared) in (dict, Mapping) and get_args(declared)[0] is str


@cache
def is_flat(cls: Any) -> bool:
    """Return whether a class is built from named entries, ``cls(**entries)``, which are its table."""
    kinds = [parameter.kind for parameter in inspect.signature(cls).parameters.values()]
    return kinds == [inspect.Parameter.VAR_KEYWORD]


@cache
def settings(cls: Any) -> dict[str, "attrs.Attribute[Any]"]:
    """Return the fields that building a class takes, by the keys of its table."""
    try:
        return {str(one.alias): one for one in attrs.fields(attrs.resolve_types(cls)) if one.init}
    # Types written as strings are code of the class's module, which may lack a name they use.
    except Exception as error:
        raise flaw(f"a type of a field of {cls.__name__} cannot be resolved: {one_line(str(error))}") from error


def expected(declared: object, families: tuple[Family, ...]) -> str:
    """Return in words what a file should hold where a type is declared."""
    words: list[str] = []
    for one in alternatives(declared):
        family, items = family_of(one, families), get_args(one)
        if family is not None:
            words += ["a number"] if family.number else []
            words += ["true or false"] if family.switch else []
            words.append(f"a table whose kind is {one_of(family.kinds)}")
        elif is_array(one):
            words.append("an array" if items[-1] is ... else f"an array of length {len(items)}")
        else:
            words.append(one_of(items) if get_origin(one) is Literal else SCALARS.get(one, "a table"))
    # The long phrases go last.
    return " or ".join(sorted(dict.fromkeys(words), key=len))
