"""List the images named in a .csv, .json or .jsonl file."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Self, cast

from attrs import evolve, frozen

from fishr.checks import near
from fishr.data.images.image_stores import ImageFiles
from fishr.data.images.listed_images import Listed, checked_name, chosen_environments
from fishr.errors import InputError, reason

LIST_EXTENSIONS = (".csv", ".json", ".jsonl")
_BRACED = re.compile(r"\{([^{}]*)\}")
_SHOWN = 12


@frozen
class Columns:
    """Names of the columns of a CSV, or of the keys of a JSON list; all others are ignored.

    Args:
        path: Column of the image's path, or a text with columns in braces, such as "train/{filename}".
        label: Column of the class, a name or a whole number.
        domain: Column of the domain, a name or a whole number; None: all images are of one, named as the file.
        split: Column of the split, from which ``splits`` of a data set choose; None: no splits.
        group: Column of the group, such as a patient, whose images in a domain ``HeldOut`` keeps together; None: none.

    Raises:
        InputError: A name is empty, or the path has a brace without its other.

    Example:
        >>> Columns(path="{hospital}/{file}.png", label="y", domain="hospital").names
        ('hospital', 'y', 'file')
    """

    path: str = "path"
    label: str = "class"
    domain: str | None = None
    split: str | None = None
    group: str | None = None

    def __attrs_post_init__(self) -> None:
        if "" in (self.label, self.domain, self.split, self.group, *self.in_path):
            raise InputError(f"columns: got an empty name in {self}, expected names of columns")
        if set(_BRACED.sub("", self.path)) & set("{}"):
            raise InputError(f'columns: got path = {self.path!r}, expected a column or columns in braces, "a/{{file}}"')

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that is read, once."""
        return tuple(dict.fromkeys(filter(None, (self.domain, self.label, self.split, self.group, *self.in_path))))

    @property
    def in_path(self) -> list[str]:
        """The columns that make the path."""
        return _BRACED.findall(self.path) if set(self.path) & set("{}") else [self.path]

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the columns that a list has of the usual names."""
        found = columns_in(path)
        domain = next((name for name in ("domain", "environment") if name in found), None)
        return cls(label="label" if "label" in found and "class" not in found else "class", domain=domain)

    def path_in(self, entry: Mapping[str, Any], where: str) -> str:
        """Return the path of an entry's image."""
        found = _BRACED.sub(lambda one: _text(entry, one[1], where), self.path)
        image = _text(entry, self.path, where) if self.path in self.in_path else found
        if not _is_path(image):
            raise InputError(f"{where}: got {image!a} as {self.path}, expected text that can be the name of a file")
        return image


def columns_in(path: Path) -> tuple[str, ...]:
    """Return the names of a list's columns."""
    _, first = next(_entries(path, ()), ("", None))
    return tuple(cast(dict[str, Any], first)) if isinstance(first, dict) else ()


def list_file(path: Path, names: Sequence[str] | None = None, columns: Columns | None = None) -> tuple[Listed, ...]:
    """Return the images of a list, by environment: of these names, or of all; columns None: the usual, with domains."""
    if columns is None:
        columns = Columns.of(path)
        columns = evolve(columns, domain=columns.domain or "environment")
    found = dict[str, list[tuple[str, str, str, str]]]()
    seen = dict[str, str]()
    for place, entry in _objects(path, columns.names):
        where = f"{path}: {place}"
        domain = path.stem if columns.domain is None else _text(entry, columns.domain, where)
        label, image = _text(entry, columns.label, where), columns.path_in(entry, where)
        split, group = ("" if one is None else _text(entry, one, where) for one in (columns.split, columns.group))
        if image in seen:
            raise InputError(f"{where}: {image!r} is listed already in {seen[image]}; list each image once")
        seen[image] = place
        name, class_name = (checked_name(where, each) for each in (domain, label))
        found.setdefault(name, []).append((image, class_name, split, group))
    if not found:
        raise InputError(f"{path}: it lists no image; give {', '.join(columns.names)} of each")
    listed = list[Listed]()
    for name in chosen_environments(path, list(found), names):
        images, classes, splits, groups = zip(*found[name], strict=True)
        own = {} if columns.split is None else {"splits": splits}
        own |= {} if columns.group is None else {"groups": groups}
        listed.append(Listed(name, ImageFiles(path.parent, images), classes, **own))
    return tuple(listed)


def listed_paths(path: Path, column: str = "path") -> Iterator[Path]:
    """Yield the images of a list in order, from one column or from several in braces; it need not have others."""
    columns = Columns(path=column)
    for place, entry in _objects(path, columns.in_path):
        yield path.parent / columns.path_in(entry, f"{path}: {place}")


def _objects(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each entry with its position in the file; refuse one that is no object."""
    for place, entry in _entries(path, columns):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: {place}: got a {_kind(entry)}, expected an object with {', '.join(columns)}")
        yield place, cast(dict[str, Any], entry)


def _entries(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield each entry with its position in the file."""
    known = path.suffix.lower() in LIST_EXTENSIONS
    if not path.is_file() or not known:
        got = f"got a list called {path.name!r}" if path.is_file() else "no such file"
        raise InputError(f"{path}: {got}; give a .csv, .json or .jsonl with environment, class and path of each image")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)}); ask for access, or copy it") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: got bytes that are no UTF-8 at {error.start}; save it as UTF-8") from error
    match path.suffix.lower():
        case ".csv":
            yield from _csv_entries(path, text, columns)
        case ".json":
            whole = _json(path, text, line=0)
            if not isinstance(whole, list):
                raise InputError(f"{path}: got a JSON {_kind(whole)}, expected a list of objects")
            for number, entry in enumerate(cast(list[Any], whole), start=1):
                yield f"entry {number}", entry
        case _:
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    yield f"line {number}", _json(path, line, number)


def _csv_entries(path: Path, text: str, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    header = text.splitlines()[0] if text else ""
    # Spreadsheets write semicolons where the comma is in decimal numbers.
    separator = next((each for each in ",;\t" if each in header), ",")
    rows = csv.DictReader(StringIO(text, newline=""), strict=True, delimiter=separator)
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        header = list(rows.fieldnames)
        missing = [key for key in columns if key not in header]
        if missing:
            got = ",".join(header[:_SHOWN]) + (",…" if len(header) > _SHOWN else "") or "nothing"
            lacking = ", ".join(name + near(name, header) for name in missing)
            raise InputError(
                f"{path}: line 1: got the header {got}, expected {','.join(columns)}; it lacks {lacking}; correct the "
                "header, or name the columns"
            )
        for row in rows:
            if None in row:
                raise InputError(
                    f"{path}: line {rows.line_num}: got more values than the header has names; quote values with a "
                    f"{separator!r} in them"
                )
            yield f"line {rows.line_num}", row
    except csv.Error as error:
        raise InputError(f"{path}: line {rows.reader.line_num}: no CSV ({error}); quote values as CSV does") from error


def _json(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        at = line or getattr(error, "lineno", 1)
        raise InputError(f"{path}: line {at}: no JSON ({getattr(error, 'msg', error)}); correct it") from error


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    """Return an entry's text, or whole number as text."""
    value = entry.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None or value == "" else f"{value!r}"
        hint = "" if key in entry else near(key, entry)
        raise InputError(f"{where}: got {got} as {key}{hint}, expected text or a whole number")
    if "\0" in value:
        raise InputError(f"{where}: got {value!a} as {key}, expected text that can be the name of a file")
    return value.strip()


def _is_path(value: str) -> bool:
    try:
        return bool(os.fsencode(value))
    except UnicodeEncodeError:
        return False


def _kind(value: Any) -> str:
    return {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}.get(type(value), "number")
