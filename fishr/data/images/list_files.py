"""List the images named in a .csv, .json or .jsonl file."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Self, cast

from attrs import frozen

from fishr.data.images.image_stores import ImageFiles
from fishr.data.images.listed_images import Listed, checked_name, chosen_environments
from fishr.errors import InputError, reason

LIST_EXTENSIONS = (".csv", ".json", ".jsonl")


@frozen
class Columns:
    """Names of a list's columns or keys; without one of environments, all images are of one, named as the file."""

    path: str = "path"
    label: str = "class"
    environment: str | None = "environment"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.environment, self.label, self.path) if name is not None)

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the columns that a list has of the usual names."""
        _, first = next(_entries(path, ()), ("", None))
        found = cast(dict[str, Any], first) if isinstance(first, dict) else {}
        environment = next((name for name in ("domain", "environment") if name in found), None)
        return cls(label="class" if "class" in found else "label", environment=environment)


def list_file(path: Path, names: Sequence[str] | None = None, columns: Columns = Columns()) -> tuple[Listed, ...]:
    """Return the images of a list, by environment: of these names, or of all."""
    found = dict[str, list[tuple[str, str]]]()
    seen = dict[str, str]()
    for where, entry in _entries(path, columns.names):
        if not isinstance(entry, dict):
            expected = ", ".join(columns.names)
            raise InputError(f"{path}: {where}: got a {_kind(entry)}, expected an object with {expected}")
        entry = cast(dict[str, Any], entry)
        *environment, group, image = (_text(entry.get(key), f"{path}: {where}", key) for key in columns.names)
        if not _is_path(image):
            raise InputError(
                f"{path}: {where}: got {image!a} as {columns.path}, expected text that can be the name of a file"
            )
        if image in seen:
            raise InputError(f"{path}: {where}: {image!r} is listed already in {seen[image]}; list each image once")
        seen[image] = where
        name, class_name = (checked_name(f"{path}: {where}", each) for each in (*(environment or [path.stem]), group))
        found.setdefault(name, []).append((image, class_name))
    if not found:
        raise InputError(f"{path}: it lists no image; give {', '.join(columns.names)} of each")
    listed = list[Listed]()
    for name in chosen_environments(path, list(found), names):
        images, classes = zip(*found[name], strict=True)
        listed.append(Listed(name, ImageFiles(path.parent, images), classes))
    return tuple(listed)


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
    rows = csv.DictReader(StringIO(text, newline=""), strict=True)
    try:
        missing = [key for key in columns if key not in (rows.fieldnames or ())]
        if missing:
            got = ",".join(rows.fieldnames or ()) or "nothing"
            raise InputError(
                f"{path}: line 1: got the header {got}, expected {','.join(columns)}; it lacks {', '.join(missing)}"
            )
        for row in rows:
            if None in row:
                raise InputError(
                    f"{path}: line {rows.line_num}: got more values than the header has names; quote values with commas"
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


def _text(value: Any, where: str, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None or value == "" else f"{value!r}"
        raise InputError(f"{where}: got {got} as {key}, expected text")
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
