"""Pages of every key of an experiment and of a plan, from the classes that TOML files describe."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from docs.generate.meanings import meanings
from fishr.configuration.declared_types import (
    SCALARS,
    alternatives,
    family_of,
    is_array,
    is_flat,
    is_mapping,
    is_optional,
    is_record,
    settings,
)
from fishr.configuration.families import FAMILIES, Family
from fishr.sweeps.plan import Plan
from fishr.training import Experiment

_INTRODUCTIONS = {
    "experiment": """# Keys of an experiment

For people who write a TOML file for `fishr train`: every key with its meaning, type and default. `fishr config show
colored-digits` prints a whole file, `fishr config validate run.toml` checks one, and `fishr config schema` prints a
JSON schema for editors. TOML has no word for None: leave the key out. Tables with a `kind` are on the page
[Kinds](kinds.md).
""",
    "plan": """# Keys of a plan

For people who write a plan for `fishr sweep`: every key with its meaning, type and default.
[The benchmark](../benchmark.md) has examples. `fishr config schema plan` prints a JSON schema for editors. TOML has no
word for None: leave the key out. Tables with a `kind` are on the page [Kinds](kinds.md).
""",
    "kinds": """# Kinds

For people who write a configuration. A table with a `kind` belongs to a family, such as Loss; `kind` is one of its
names below, or `"module:Name"` for a class of your own with `--plugin module`. The other keys of the table are those
of the kind. [A method of your own](../own-methods.md) has examples.
""",
}


_PLURALS = {"a string": "strings", "a whole number": "whole numbers", "a number": "numbers"}


def pages() -> dict[str, str]:
    """Return the Markdown of each page by its name."""
    places = {Experiment: "experiment", Plan: "plan"}
    for start, page in tuple(places.items()):
        for found in _reached(start, set()):
            places.setdefault(found, page)
    families = {family: list(family.kinds.values()) for family in FAMILIES}
    for found in [cls for kinds in families.values() for cls in kinds]:
        places[found] = "kinds"
        for record in _reached(found, set()):
            places.setdefault(record, "kinds")
    text = dict(_INTRODUCTIONS)
    for cls, page in places.items():
        if page != "kinds":
            text[page] += _record(cls, places, page, 2)
    shown = set[type[Any]]()
    listed = dict[tuple[Any, ...], str]()
    for family, kinds in families.items():
        name = family.protocol.__name__
        text["kinds"] += _family(family, kinds, listed.setdefault(tuple(kinds), name))
        for cls in kinds:
            if cls not in shown:
                text["kinds"] += _record(cls, places, "kinds", 3)
                shown.add(cls)
    text["kinds"] += "\n## Tables of kinds\n"
    for cls, page in places.items():
        if page == "kinds" and cls not in shown:
            text["kinds"] += _record(cls, places, "kinds", 3)
    return text


def _reached(cls: Any, seen: set[Any]) -> Iterator[Any]:
    """Yield the records in the fields of a class, and those in theirs."""
    for one in settings(cls).values():
        for declared in _parts(one.type):
            if is_record(declared) and family_of(declared, FAMILIES) is None and declared not in seen:
                seen.add(declared)
                yield declared
                yield from _reached(declared, seen)


def _parts(declared: Any) -> Iterator[Any]:
    for one in alternatives(declared):
        if get_origin(one) in (None, Literal):
            yield one
        else:
            for part in get_args(one):
                yield from _parts(part)


def _family(family: Family, kinds: list[type[Any]], listed: str) -> str:
    name = family.protocol.__name__
    notes = [_markdown(_summary(family.protocol))]
    if family.implied:
        notes.append(f"A table without `kind` is one of kind `{family.implied}`.")
    if family.number:
        notes.append(f"A plain number is a `{family.number}`.")
    if family.switch:
        notes.append("`false` is `{}`, `true` is `{}`.".format(*family.switch))
    if family.function is not None:
        notes.append(f"Your own may be a plain function `f({', '.join(family.function)})`.")
    if kinds and listed != name:
        notes.append(f"Its kinds are those of the [family {listed}](#family-{listed.lower()}).")
        kinds = []
    rows = "".join(f"| [`{cls.__name__}`](#{cls.__name__.lower()}) | {_cell(_summary(cls))} |\n" for cls in kinds)
    table = f"\n| kind | |\n|---|---|\n{rows}" if rows else ""
    return f"\n## Family: {name}\n\n{' '.join(notes)}\n{table}"


def _record(cls: Any, places: dict[Any, str], page: str, level: int) -> str:
    known, rows = meanings(cls), list[str]()
    for key, one in settings(cls).items():
        meaning = known.get(key, known.get(one.name, ""))
        if is_flat(cls):
            # The entries of its only field are its keys.
            cells = ("*any names*", meaning, _words(get_args(one.type)[1], places, page), "")
        else:
            cells = (f"`{key}`", meaning, _words(one.type, places, page), _default(one))
        rows.append("| " + " | ".join(map(_cell, cells)) + " |\n")
    head = "| key | meaning | type | default |\n|---|---|---|---|\n" if rows else "It has no keys.\n"
    return f"\n{'#' * level} {cls.__name__}\n\n{_markdown(_summary(cls))}\n\n{head}{''.join(rows)}"


def _words(declared: Any, places: dict[Any, str], page: str) -> str:
    """Return in words what a file holds where a type is declared."""
    words = list[str]()
    for one in alternatives(declared):
        family, items = family_of(one, FAMILIES), get_args(one)
        if family is not None:
            words += ["a number"] if family.number else []
            words += ["true or false"] if family.switch else []
            name = family.protocol.__name__
            words.append(_link(f"family-{name}", "kinds", page, name))
        elif get_origin(one) is Literal:
            words.append(", ".join(f"`{json.dumps(item)}`" for item in items))
        elif is_mapping(one):
            words.append(f"a table of names, each {_words(items[1], places, page)}")
        elif is_array(one):
            inner = " or ".join(dict.fromkeys(_words(item, places, page) for item in items if item is not ...))
            count = "" if items[-1] is ... else f"{len(items)} "
            words.append(f"an array of {count}{_PLURALS[inner]}" if inner in _PLURALS else f"an array, each {inner}")
        elif is_record(one):
            words.append(f"table {_link(one.__name__, places[one], page, one.__name__)}")
        else:
            words.append(SCALARS[one])
    return " or ".join(dict.fromkeys(words))


def _link(anchor: str, there: str, page: str, name: str) -> str:
    return f"[`{name}`]({'' if there == page else there + '.md'}#{anchor.lower()})"


def _default(one: "attrs.Attribute[Any]") -> str:
    value = one.default
    if value is attrs.NOTHING:
        return "none" if is_optional(one.type) else "required"
    if isinstance(value, attrs.Factory):  # type: ignore[arg-type]
        return "computed" if value.takes_self else _shown(value.factory())
    return _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if attrs.has(type(value)) or inspect.isclass(value):
        return f"`{type(value).__name__}`"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{json.dumps(str(value) if isinstance(value, Path) else value)}`"


def _summary(cls: Any) -> str:
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _markdown(text: str) -> str:
    text = re.sub(r":\w+:`(\w+)`", r"`\1`", text.replace("``", "`"))
    return "`".join(part if index % 2 else part.replace("*", "\\*") for index, part in enumerate(text.split("`")))


def _cell(text: str) -> str:
    return _markdown(text).replace("|", "\\|") if not text.startswith("*") else text
