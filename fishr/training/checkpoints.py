"""Checkpoints: the training state in one file that is whole or absent, and checked before anything is built from it."""

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import attrs
import torch
from attrs import frozen
from torch import Tensor
from torch.utils.serialization import config

from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.tensor_trees import PLAIN, is_dense, parts, plain, restored
from fishr.training.run_folder import same_configuration
from fishr.training.signature import Signature
from fishr.training.state import TrainingState, with_weights, without_optimizer
from fishr.training.step import NotFinite

FORMAT = "fishr checkpoint"
VERSION = 1
_SIGNATURE, _AVERAGED = "signature", "averaged"
_ENTRIES, _DEPTH = 1_000_000, 100
_DIRECTORY = 0x10  # file attribute of DOS


@frozen(eq=False)
class Checkpoint:
    """Content of a checkpoint file."""

    state: TrainingState  # on the CPU
    experiment_text: str = ""  # configuration of the run, as TOML
    position: int = 0  # bytes of the metrics file that belong to the state
    seconds: float = 0.0  # spent training so far
    signature: Signature | None = None  # None: made by a version that kept none
    averaged: dict[str, Tensor] | None = None  # weights of the average, where there is one

    @property
    def evaluated(self) -> TrainingState:
        """The state with the weights that are evaluated and exported: those of the average, where there is one."""
        if self.averaged is None and self.state.average is not None:
            raise InputError("checkpoint: got no averaged weights, as in those of early versions; train the run again")
        return with_weights(self.state, self.averaged or {})


def save(
    path: Path,
    state: TrainingState,
    experiment_text: str,
    position: int = 0,
    seconds: float = 0.0,
    signature: Signature | None = None,
    averaged: dict[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint; until it is whole, the previous one stays.

    The file is a dict of plain values that ``torch.load(path, weights_only=True)`` reads anywhere, with the weights
    under "parameters" and, where the run averages them, those of the average under "averaged". The arguments are the
    fields of ``Checkpoint``. One process at a time writes a path.

    Raises:
        NotFinite: a parameter is infinite or not a number.
        RunFailed: the file could not be written.
    """
    if bad := _not_finite(state):
        raise NotFinite(state.step, f"parameter {bad[0]}", bad[1])
    head = {"format": FORMAT, "version": VERSION}
    rest = {"experiment_text": experiment_text, "position": position, "seconds": seconds}
    if signature is not None:
        rest[_SIGNATURE] = plain(signature)
    if averaged is not None:
        rest[_AVERAGED] = plain(averaged)
    buffer = io.BytesIO()
    # Without the CRC of each entry, which a process can switch off, damage would not be noticed.
    with config.patch("save.compute_crc32", True):  # pyright: ignore[reportAttributeAccessIssue]
        torch.save(head | _entries(state) | rest, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path, template: TrainingState | None = None, experiment_text: str | None = None) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Args:
        path: a file that ``save`` wrote.
        template: a state of the same experiment, such as its initial one, whose types the result has. Without it,
            records of penalties are dicts, and no run can resume from them.
        experiment_text: the configuration that the checkpoint has to be of, as TOML; None accepts any.

    Raises:
        InputError: no such file, one that is damaged or of another program or version, a state that does not fit
            the template, or another configuration.

    Example:
        >>> load(Path("nowhere.pt"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.pt: no such checkpoint; give the path of a checkpoint.pt in a run folder
    """
    tree = read_checkpoint(path)
    names = [attribute.name for attribute in attrs.fields(TrainingState)]
    optional = ("state", _SIGNATURE, _AVERAGED)
    rest = [attribute.name for attribute in attrs.fields(Checkpoint) if attribute.name not in optional]
    fields: dict[str, Any] = {name: tree.get(name) for name in names}
    if template is not None:
        if (fields["scale"] is None) is not (template.scale is None):
            raise InputError(f"{path}: scale: made in another precision than the configuration's; resume with its own")
        fields = {name: restored(fields[name], getattr(template, name), f"{path}: {name}") for name in names}
    state = TrainingState(**fields)
    if bad := _not_finite(state):
        raise InputError(f"{path}: damaged, parameter {bad[0]} is {bad[1]}; use another checkpoint")
    if experiment_text is not None and not same_configuration(tree["experiment_text"], experiment_text):
        raise InputError(
            f"{path}: was made with another configuration than the config.toml beside it; "
            "put back the files that belong together, or start anew under another name"
        )
    signature = Signature.read(tree[_SIGNATURE]) if _SIGNATURE in tree else None
    return Checkpoint(state, **{name: tree[name] for name in rest}, signature=signature, averaged=tree.get(_AVERAGED))


def drop_optimizer(path: Path) -> None:
    """Write a checkpoint again with the evaluated weights alone: it can be evaluated, but not resumed."""
    made = load(path)
    save(path, without_optimizer(made.evaluated), made.experiment_text, made.position, made.seconds, made.signature)


def _entries(state: TrainingState) -> dict[str, Any]:
    """Return a state as plain values, without those that most runs lack."""
    return {name: value for name, value in plain(state).items() if value is not None or name in _EXPECTED}


def _not_finite(state: TrainingState) -> tuple[str, float] | None:
    for name, parameter in state.parameters.items():
        total = float(parameter.detach().sum(dtype=torch.float64))
        if not math.isfinite(total):
            return name, total
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint as plain values and tensors on the CPU; nothing in the file is executed."""
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
    """Return the first thing that is wrong with a file's content, or an empty text."""
    # With limits: a few bytes can describe a tree of endless depth, or of endlessly many entries.
    for count, (name, part, depth) in enumerate(parts(tree)):
        if count >= _ENTRIES or depth > _DEPTH:
            return f"it has more than {_ENTRIES} entries or {_DEPTH} levels"
        if isinstance(part, dict) and not all(type(key) is str for key in cast(dict[Any, Any], part)):
            return f"{name} has a key that is no text"
        if isinstance(part, Tensor) and not is_dense(part):
            return f"{name} is a tensor whose values overlap or have gaps between them"
        if not isinstance(part, Tensor | dict) and type(part) not in (*PLAIN, tuple, list):
            return f"{name} is a {type(part).__name__}, expected a tensor, a number, text or None"
    for name, (fits, expected) in _EXPECTED.items():
        if not fits(tree[name]):
            return f"{name} is not {expected}"
    if _SIGNATURE in tree and not _is_signature(tree[_SIGNATURE]):
        return f"{_SIGNATURE} is not that of a model"
    if not _is_named_tensors(tree.get(_AVERAGED, {})):
        return f"{_AVERAGED} is not tensors by name"
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
        case {"steps": _} | {"moments": _}:
            return False
        case _:
            return True


def _is_tensors(value: Any, length: int) -> bool:
    tensors = cast(tuple[Any, ...], value)
    return type(value) is tuple and len(tensors) == length and all(isinstance(part, Tensor) for part in tensors)


def _is_generator(value: Any) -> bool:
    try:
        torch.Generator().set_state(value)
    except (RuntimeError, TypeError):
        return False
    return True


def _is_signature(value: Any) -> bool:
    try:
        Signature.read(value)
    except (TypeError, ValueError):
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
