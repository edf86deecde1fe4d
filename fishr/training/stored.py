"""The plain content of a checkpoint's file, checked before anything is built from it."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.training.trees import is_dense

FORMAT = "fishr checkpoint"
VERSION = 1
_ENTRIES, _DEPTH = 1_000_000, 100
_DIRECTORY = 0x10  # file attribute of DOS


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what a checkpoint's file holds; nothing in it is executed, and a damaged byte is an error.

    Args:
        path: a file that ``save`` of ``fishr.training`` wrote.

    Returns:
        A dict of plain values and tensors on the CPU, the weights under "parameters" and "buffers".

    Raises:
        InputError: no such file, or one that is damaged or of another program or version.

    Example:
        >>> read_checkpoint(Path("nowhere.pt"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.pt: no such checkpoint; give the path of a checkpoint.pt in a run folder
    """
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: is a link that leads nowhere; put the checkpoint back, or remove the link")
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; give the path of a checkpoint.pt in a run folder")
    try:
        with path.open("rb") as file:
            _check_archive(file)
            file.seek(0)
            tree: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile and torch raise all kinds of errors on bytes that are not their own
        raise InputError(
            f"{path}: not a readable checkpoint (damaged, cut short, or another program's file); use another one"
        ) from error
    if not isinstance(tree, dict) or cast(dict[str, Any], tree).get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of fishr; give the path of a checkpoint.pt in a run folder")
    found = cast(dict[str, Any], tree)
    if found.get("version") != VERSION:
        raise InputError(
            f"{path}: got a checkpoint of version {found.get('version')}, expected {VERSION}; "
            "use the version of fishr that wrote it"
        )
    missing = [name for name in _EXPECTED if name not in found]
    problem = f"it lacks {', '.join(missing)}" if missing else _problem(found)
    if problem:
        raise InputError(f"{path}: damaged, {problem}; use another checkpoint")
    return found


def _check_archive(file: BinaryIO) -> None:
    """Compare each entry of a zip archive with its CRC; torch checks none of them."""
    with ZipFile(file) as archive:
        entries = archive.infolist()
        # A compressed entry, or many that overlap, could be larger than memory. Of a directory torch returns
        # uninitialized memory.
        stored = all(entry.compress_type == ZIP_STORED and entry.compress_size == entry.file_size for entry in entries)
        directory = any(entry.is_dir() or entry.external_attr & _DIRECTORY for entry in entries)
        if not stored or directory or sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise BadZipFile("not an archive that torch.save wrote")
        damaged = archive.testzip()
        if damaged is not None:
            raise BadZipFile(f"{damaged} is damaged")


def _problem(tree: dict[str, Any]) -> str:
    """What is wrong with a tree, or nothing."""
    pending: list[tuple[str, Any, int]] = [("", tree, 0)]
    count = 0
    # With a stack and a limit: a few bytes can describe a tree of endless depth, or of endlessly many entries.
    while pending:
        name, part, depth = pending.pop()
        count += 1
        if count > _ENTRIES or depth > _DEPTH:
            return f"it has more than {_ENTRIES} entries or {_DEPTH} levels"
        if isinstance(part, dict):
            children = cast(dict[Any, Any], part)
            if not all(type(key) is str for key in children):
                return f"{name} has a key that is no text"
            pending += [(f"{name}.{key}" if name else key, child, depth + 1) for key, child in children.items()]
        elif type(part) in (tuple, list):
            pending += [(f"{name}.{index}", child, depth + 1) for index, child in enumerate(cast(list[Any], part))]
        elif isinstance(part, Tensor):
            if not is_dense(part):
                return f"{name} is a tensor whose values overlap or have gaps between them"
        elif type(part) not in (bool, int, float, str, type(None)):
            return f"{name} is a {type(part).__name__}, expected a tensor, a number, text or None"
    for name, (fits, expected) in _EXPECTED.items():
        if not fits(tree[name]):
            return f"{name} is not {expected}"
    return ""


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0 and math.isfinite(value)


def _is_named_tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(part, Tensor) for part in cast(dict[str, Any], value).values())


def _is_optimizer(value: Any) -> bool:
    match value:
        case {"steps": tuple() as steps, "moments": dict() as moments, **rest} if not rest:
            counts = cast(tuple[Any, ...], steps)
            lists = cast(dict[str, Any], moments).values()
            return all(map(_is_count, counts)) and all(_is_tensors(each, len(counts)) for each in lists)
        case _:
            return False


def _is_tensors(value: Any, length: int) -> bool:
    tensors = cast(tuple[Any, ...], value)
    return type(value) is tuple and len(tensors) == length and all(isinstance(part, Tensor) for part in tensors)


def _is_generator(value: Any) -> bool:
    try:
        torch.Generator().set_state(value)
    except (RuntimeError, TypeError):
        return False
    return True


def _is_scale(value: Any) -> bool:
    match value:
        case None:
            return True
        case {"value": factor, "steps": steps, **rest} if not rest:
            return _is_number(factor) and factor > 0 and _is_count(steps)
        case _:
            return False


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "step": (_is_count, "a whole number of at least 0"),
    "parameters": (_is_named_tensors, "tensors by name"),
    "buffers": (_is_named_tensors, "tensors by name"),
    "optimizer": (_is_optimizer, "counts of at least 0 and as many tensors"),
    "penalty": (lambda value: True, ""),
    "generator": (_is_generator, "the state of a generator of random numbers"),
    "scale": (_is_scale, "None or a factor greater than 0 with a count"),
    "experiment_text": (lambda value: type(value) is str, "text"),
    "position": (_is_count, "a whole number of at least 0"),
    "seconds": (_is_number, "a finite number of at least 0"),
}
