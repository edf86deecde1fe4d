"""JSON schemas of frozen classes, generated from their fields and families, so that editors complete and check TOML."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from fishr.configuration.declared_types import (
    alternatives,
    family_of,
    is_flat,
    is_mapping,
    is_optional,
    is_record,
    settings,
)
from fishr.configuration.families import FAMILIES, KIND, Family

_SCALARS: dict[type, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    Path: {"type": "string", "minLength": 1},
}
_PLUGIN = {
    "type": "object",
    "properties": {KIND: {"type": "string", "pattern": r"^[\w.]+:[\w.]+$"}},
    "required": [KIND],
}


def schema(target: type[Any], families: tuple[Family, ...] = FAMILIES) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the tables that describe a class.

    Ranges of numbers are checked by the classes themselves, when the table is read.

    Example:
        >>> from fishr.penalties import VREx
        >>> schema(VREx)["$defs"]["VREx"]["properties"]
        {'form': {'enum': ['variance', 'pairwise'], 'default': 'variance'}}
    """
    definitions: dict[str, Any] = {}

    def reference(name: str, make: Any) -> dict[str, Any]:
        if name not in definitions:
            definitions[name] = {}  # a class may hold members of its own family
            definitions[name].update(make())
        return {"$ref": f"#/$defs/{name}"}

    def of(declared: Any) -> dict[str, Any]:
        family = family_of(declared, families)
        if family is not None:
            return reference(family.protocol.__name__, lambda: members(family))
        if len(alternatives(declared)) != 1 or alternatives(declared)[0] is not declared:
            parts = [of(one) for one in alternatives(declared)]
            return parts[0] if len(parts) == 1 else {"anyOf": parts}
        if declared in _SCALARS:
            return dict(_SCALARS[declared])
        if get_origin(declared) is Literal:
            return {"enum": list(get_args(declared))}
        if is_mapping(declared):
            return {"type": "object", "additionalProperties": of(get_args(declared)[1])}
        if is_record(declared):
            return reference(declared.__name__, lambda: record(declared))
        *items, last = get_args(declared)
        if last is ...:
            return {"type": "array", "items": of(items[0])}
        fixed = [of(one) for one in (*items, last)]
        return {"type": "array", "prefixItems": fixed, "minItems": len(fixed), "maxItems": len(fixed)}

    def record(cls: Any, kind: str | None = None, named: bool = True) -> dict[str, Any]:
        fields = settings(cls)
        if is_flat(cls):
            (one,) = fields.values()
            table: dict[str, Any] = {**of(one.type), "properties": {}}
            required = list[str]()
        else:
            properties = {key: of(one.type) | _default(one) for key, one in fields.items()}
            required = [
                key for key, one in fields.items() if one.default is attrs.NOTHING and not is_optional(one.type)
            ]
            table = {"type": "object", "properties": properties, "additionalProperties": False}
        if kind is not None:
            table["properties"] = {KIND: {"const": kind}, **table["properties"]}
            required = [KIND, *required] if named else required
        described = {"description": cls.__doc__.strip().splitlines()[0]} if cls.__doc__ else {}
        return {**table, "required": required, **described}

    def members(family: Family) -> dict[str, Any]:
        parts = [record(cls, kind, kind != family.implied) for kind, cls in family.kinds.items()]
        plain = [{"type": "number"}] if family.number else [{"type": "boolean"}] if family.switch else []
        return {"anyOf": [*parts, _PLUGIN, *plain]}

    top = of(target)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": definitions}


def _default(one: "attrs.Attribute[Any]") -> dict[str, Any]:
    return {"default": one.default} if isinstance(one.default, bool | int | float | str) else {}
