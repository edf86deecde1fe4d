"""Environments from a list of image files."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, cast

from attrs import frozen

from fishr.data.domains import Environments
from fishr.data.images.assembling import assemble, check_settings
from fishr.data.images.listing import Listed, chosen_environments
from fishr.data.images.names import checked_name
from fishr.data.images.pictures import ImageFiles, Prepare
from fishr.errors import InputError

KEYS = ("environment", "class", "path")
EXTENSIONS = (".csv", ".json", ".jsonl")


@frozen
class ImageList:
    """Images that a file lists with their environments and classes, read when they are needed.

    The file is a .csv with the header environment,class,path, a .json list of objects with these keys, or a .jsonl
    with one such object a line. A relative path of an image starts at the list's folder. Classes are sorted by name,
    and the images of an environment come as they are listed.

    Args:
        path: of the list; a relative one starts at ``data_dir``, or at the folder "data" where none is given.
        size: side of an input, pixels.
        augment: whether training images are augmented as DomainBed does.
        augment_evaluation: whether images to be evaluated are augmented too, each always in the same way.
        environments: names of those to take, in this order, all of which must be there; None: all there are, sorted.
        samples: rows of each environment at most, the same in every run, of all classes; None: all.
        cache: path of a file of ``fishr cache images`` to read instead of the list and its images, which need not be
            there; a relative one starts where that of ``path`` does.
        prepare: who makes inputs of images. "reader": the thread that reads one, alone. "device": threads read and
            crop, and where the model computes the colours of a batch are changed at once. "held": the same, but images
            are read once, resized, and kept there as 8-bit pixels.

    Raises:
        InputError: a setting outside its range; when called, a list that is missing or not as described, images that
            cannot be read, or a cache of another size or without the environments.

    Example:
        >>> ImageList("wards.csv")(seed=0, data_dir=Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere/wards.csv: no such file; give a .csv, .json or .jsonl with environment, class \
and path of each image
    """

    path: str
    size: int = 224
    augment: bool = True
    augment_evaluation: bool = False
    environments: tuple[str, ...] | None = None
    samples: int | None = None
    cache: str | None = None
    prepare: Prepare = "reader"

    def __attrs_post_init__(self) -> None:
        """Refuse what no images could be read by."""
        check_settings(self)

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Read the list and check its files; there is nothing to draw, so ``seed`` is not used."""
        return assemble(self, self.path, data_dir, lambda path: list_file(path, self.environments))


def list_file(path: Path, wanted: Sequence[str] | None = None) -> tuple[Listed, ...]:
    """The images of a list, by environment.

    Args:
        path: of a .csv, .json or .jsonl; see ``ImageList``.
        wanted: names of the environments to take; None: all.

    Raises:
        InputError: no such file, or a line of it that is not as described.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "wards.csv")
        ...     _ = path.write_text("environment,class,path\\nnorth,ill,1.png\\nnorth,well,2.png\\n")
        ...     list_file(path)[0].classes
        ('ill', 'well')
    """
    found = dict[str, list[tuple[str, str]]]()
    seen = dict[str, str]()
    for where, entry in _entries(path):
        environment, group, image = (_text(entry.get(key), f"{path}: {where}", key) for key in KEYS)
        if image in seen:
            raise InputError(f"{path}: {where}: {image!r} is listed already in {seen[image]}; list each image once")
        seen[image] = where
        name, class_name = (checked_name(f"{path}: {where}", each) for each in (environment, group))
        found.setdefault(name, []).append((image, class_name))
    if not found:
        raise InputError(f"{path}: it lists no image; give environment, class and path of each")
    return tuple(
        Listed(
            name,
            ImageFiles(path.parent, tuple(image for image, _ in found[name])),
            tuple(group for _, group in found[name]),
        )
        for name in chosen_environments(path, list(found), wanted)
    )


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each entry with where it stands."""
    known = path.suffix.lower() in EXTENSIONS
    if not path.is_file() or not known:
        got = f"got a list called {path.name!r}" if path.is_file() else "no such file"
        raise InputError(f"{path}: {got}; give a .csv, .json or .jsonl with environment, class and path of each image")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); ask for the right to, or copy it") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: got bytes that are no UTF-8 at {error.start}; save it as UTF-8") from error
    match path.suffix.lower():
        case ".csv":
            yield from _csv_entries(path, text)
        case ".json":
            whole = _json(path, text, line=0)
            if not isinstance(whole, list):
                raise InputError(f"{path}: got a JSON {_kind(whole)}, expected a list of objects")
            for number, entry in enumerate(cast(list[Any], whole), start=1):
                yield f"entry {number}", _object(path, f"entry {number}", entry)
        case _:
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    yield f"line {number}", _object(path, f"line {number}", _json(path, line, number))


def _csv_entries(path: Path, text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv.DictReader(StringIO(text, newline=""), strict=True)
    try:
        missing = [key for key in KEYS if key not in (rows.fieldnames or ())]
        if missing:
            got = ",".join(rows.fieldnames or ()) or "nothing"
            raise InputError(
                f"{path}: line 1: got the header {got}, expected {','.join(KEYS)}; it lacks {', '.join(missing)}"
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
        raise InputError(f"{path}: line {at}: no JSON ({getattr(error, 'msg', error)}); mend it") from error


def _object(path: Path, where: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InputError(f"{path}: {where}: got a {_kind(entry)}, expected an object with {', '.join(KEYS)}")
    return cast(dict[str, Any], entry)


def _text(value: Any, where: str, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        got = "nothing" if value is None or value == "" else f"{value!r}"
        raise InputError(f"{where}: got {got} as {key}, expected text")
    if "\0" in value or (key == "path" and not _is_path(value)):
        raise InputError(f"{where}: got {value!a} as {key}, expected text that can be the name of a file")
    return value.strip()


def _is_path(value: str) -> bool:
    try:
        return bool(os.fsencode(value))
    except UnicodeEncodeError:
        return False


def _kind(value: Any) -> str:
    return {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}.get(type(value), "number")
