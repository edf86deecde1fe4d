"""Rows of domains that need not fit into memory: computed part by part, put together chunk by chunk, read in slices."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch
from attrs import frozen

from fishr.data.caches.encoding import (
    Array,
    Damaged,
    Tree,
    checked_array,
    create_rows,
    entry,
    read_element,
    read_rows,
    stamp,
    write_tree,
)
from fishr.data.caches.hdf5 import opened, write_whole
from fishr.data.caches.provenance import cache_key, check_fit
from fishr.data.caches.unfinished import Parts
from fishr.data.value_checks import check_classes, check_finite
from fishr.errors import InputError
from fishr.files import present

PART_BYTES = 1 << 24
SPLITS = ("training", "evaluation")


@frozen
class Section:
    """A domain of a file.

    Args:
        name: of the domain.
        split: "training" or "evaluation".
        rows: n, its samples.

    Example:
        >>> Section("photo", "training", 1670).rows
        1670
    """

    name: str
    split: str
    rows: int


@frozen(eq=False)
class Content:
    """What a file of domains will hold.

    Args:
        kind: of the file, such as "fishr-features".
        provenance: what decides the rows, and what else is to be known of their making.
        head: the classifier on top.
        sections: the domains.
        compute: (domain, start, stop) to the entries of these rows; the same entries however often it is asked.
        columns: which of the entries have a row a sample; they are put together along their first axis.
        summary: from the entries of all parts of a domain, one after the other, to further entries of the domain.
        more: further entries of the file.

    Example:
        >>> import numpy as np
        >>> sections, compute = (Section("photo", "training", 3),), lambda domain, start, stop: {"ids": np.arange(3)}
        >>> Content("fishr-features", {}, {}, sections, compute, columns=("ids",)).columns
        ('ids',)
    """

    kind: str
    provenance: Mapping[str, Any]
    head: Mapping[str, Any]
    sections: Sequence[Section]
    compute: Callable[[int, int, int], Mapping[str, Any]]
    columns: tuple[str, ...]
    summary: Callable[[Iterator[Tree]], Mapping[str, Any]] | None = None
    more: Mapping[str, Any] = {}


def write_domains(
    path: Path, content: Content, part_rows: int, progress: Callable[[int], object] = lambda rows: None
) -> bool:
    """Write a file of domains in memory that does not grow with their rows; go on where a killed writer stopped.

    Each part of so many rows is computed once and lies in ``<path>.parts`` until the file is whole.

    Args:
        path: where; its folder exists.
        content: what to write.
        part_rows: rows computed at a time, which bounds memory and what a kill costs.
        progress: is told the rows of each part that is there.

    Returns:
        Whether it was written; False if it was there already, made of the same.

    Raises:
        InputError: a file or unfinished parts made of something else are there, the first field that differs is
            named; or another process is writing it.
        RunFailed: it could not be written; the parts are kept.

    Example:
        >>> import tempfile, numpy as np
        >>> sections = (Section("photo", "training", 5),)
        >>> compute = lambda domain, start, stop: {"ids": np.arange(start, stop)}
        >>> content = Content("fishr-features", {"seed": 0}, {}, sections, compute, columns=("ids",))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.h5")
        ...     write_domains(path, content, part_rows=2), write_domains(path, content, part_rows=2)
        ...     read_columns(path, "fishr-features", cache_key({"seed": 0}), 0, ("ids",), start=1, stop=4)["ids"]
        (True, False)
        array([1, 2, 3])
    """
    # Parts of one device or size are not mixed with those of another.
    settings = {**content.provenance, "device of unfinished parts": content.provenance.get("device", "")}
    settings |= {"rows of a part": part_rows}
    _check_unfinished(path, settings)
    blocks = [
        (domain, start, min(start + part_rows, section.rows))
        for domain, section in enumerate(content.sections)
        for start in range(0, section.rows, part_rows)
    ]
    with Parts(path, content.kind, cache_key(settings)) as parts:
        if present(path):
            with opened(path, content.kind) as file:
                found = read_element(file, "provenance")
            check_fit(path, found, content.provenance)
            parts.remove()
            return False
        done = set(parts.done)
        for number, (domain, start, stop) in enumerate(blocks):
            if number not in done:
                parts.write(number, {"settings": json.dumps(settings), "rows": content.compute(domain, start, stop)})
            progress(stop - start)
        numbers = [
            [number for number, block in enumerate(blocks) if block[0] == d] for d in range(len(content.sections))
        ]
        write_whole(path, content.kind, 1, lambda file: _assemble(file, content, parts, numbers))
        parts.remove()
    return True


def read_sections(file: h5py.File) -> tuple[Section, ...]:
    """The domains of an open file.

    Raises:
        Damaged: it has none.
    """
    domains = entry(file, "domains")
    found, numbers = list[Section](), sorted(domains, key=int)
    for index in numbers:
        group = entry(domains, index)
        # Moments alone have no rows to count.
        rows = read_element(group, "count") if "count" in group else len(entry(group, "ids"))
        name, split = read_element(group, "name"), read_element(group, "split")
        if not isinstance(name, str) or split not in SPLITS or type(rows) is not int or rows < 1:
            got = f"name {name!r}, split {split!r} and {rows!r} rows"
            raise Damaged(f"{group.name}: got {got}, expected text, training or evaluation, and at least 1")
        found.append(Section(name, split, rows))
    if not found:
        raise Damaged("it has no domain")
    if numbers != [str(index) for index in range(len(found))] or len({each.name for each in found}) < len(found):
        raise Damaged("its domains are not numbered from 0, or two have one name")
    return tuple(found)


def read_columns(
    path: Path, kind: str, key: str, domain: int, columns: tuple[str, ...], start: int = 0, stop: int | None = None
) -> dict[str, Array]:
    """Rows of a domain; HDF5 checks each chunk that it reads, and a whole column is checked against its hash too.

    Args:
        path: of the file.
        kind: that it must have.
        key: that it must have.
        domain: which one, from 0.
        columns: which entries.
        start: the first row.
        stop: the row after the last one; None: to the end.

    Returns:
        [stop - start, ...] of each column.

    Raises:
        InputError: absent, damaged or another file than the key's, or no such domain.
    """
    with opened(path, kind) as file:
        if read_element(file, "key") != key:
            raise InputError(f"{path}: is another file than was opened (its key has changed); open it again")
        domains = entry(file, "domains")
        if str(domain) not in domains:
            raise InputError(f"{path}: got domain {domain}, expected 0 to {len(domains) - 1}")
        group = entry(domains, str(domain))
        if start == 0 and stop is None:
            return {name: read_element(group, name) for name in columns}
        return {name: read_rows(entry(group, name), start, stop) for name in columns}


def _check_unfinished(path: Path, settings: Mapping[str, Any]) -> None:
    unfinished = Parts.existing(path)
    if unfinished is None:
        return
    found = unfinished.read(unfinished.done[0]).get("settings")
    remedy = "finish it with its own settings, remove the folder, or choose another name"
    # Parts of another kind have none, and are refused for their kind.
    if isinstance(found, str):
        check_fit(Path(f"{path}.parts"), json.loads(found), settings, remedy=remedy)


def _assemble(file: h5py.File, content: Content, parts: Parts, numbers: list[list[int]]) -> None:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    key = cache_key(content.provenance)
    head = {"provenance": {**content.provenance, "created": created}, "key": key, "head": content.head}
    write_tree(file, {**head, **content.more})
    domains = file.create_group("domains", track_order=True)
    stamp(domains, "mapping")
    for index, section in enumerate(content.sections):
        group = domains.create_group(str(index), track_order=True)
        stamp(group, "mapping")
        write_tree(group, {"name": section.name, "split": section.split})
        if content.summary is not None:
            write_tree(group, content.summary(_rows(parts, number) for number in numbers[index]))
        _write_columns(group, content.columns, section.rows, (_rows(parts, number) for number in numbers[index]))


def _rows(parts: Parts, number: int) -> Tree:
    return cast(Tree, parts.read(number)["rows"])


def _write_columns(group: h5py.Group, columns: tuple[str, ...], rows: int, parts: Iterator[Tree]) -> None:
    if not columns:
        return
    datasets, hashes = dict[str, h5py.Dataset](), {name: sha256() for name in columns}
    start = 0
    for part in parts:
        stop = start
        for name in columns:
            values = checked_array(cast(Array, part[name]), f"{group.name}/{name}")
            if name not in datasets:
                datasets[name] = create_rows(group, name, rows, values)
            stop = start + len(values)
            datasets[name][start:stop] = values
            hashes[name].update(values.data)
        start = stop
    for name, dataset in datasets.items():
        stamp(dataset, "array", hashes[name].hexdigest())


_REMEDY = "make it again"
_FLOATS = {"features": "a feature", "deltas": "a derivative", "gradients": "a gradient"}
_KINDS = {"images": "u", "labels": "i", "ids": "i"}


def read_origin(file: h5py.File) -> tuple[dict[str, Any], str]:
    """Return the provenance and the key of an open file.

    Raises:
        Damaged: they are missing, or no mapping and no text.
    """
    provenance, key = read_mapping(file, "provenance"), read_element(file, "key")
    if not isinstance(key, str):
        raise Damaged(f"/key is {key!r}, not text")
    for name, value in provenance.items():
        if isinstance(value, (dict, np.ndarray)):
            raise Damaged(f"/provenance/{name} is no text, number or list of texts")
    return provenance, key


def read_mapping(file: h5py.File, name: str) -> dict[str, Any]:
    """Return an entry that is a mapping.

    Raises:
        Damaged: it is missing, or another value.
    """
    found = read_element(file, name)
    if not isinstance(found, dict):
        raise Damaged(f"/{name} is no mapping")
    return cast(dict[str, Any], found)


def whole_number(tree: Mapping[str, Any], name: str, where: str) -> int:
    """Return an entry that is a whole number of at least 1.

    Raises:
        Damaged: it is missing, or another value.
    """
    value = tree.get(name)
    if type(value) is not int or value < 1:
        raise Damaged(f"{where}/{name} is {value!r}, not a whole number of at least 1")
    return value


def classes_of(outputs: int) -> int:
    """Return how many classes a head's outputs tell apart; a single one tells two."""
    return max(2, outputs)


def check_columns(
    path: Path,
    file: h5py.File,
    sections: Sequence[Section],
    shapes: Mapping[str, tuple[int | None, ...]],
    classes: int,
) -> None:
    """Check the columns of each domain: types and shapes of all, and the values of labels.

    Args:
        path: of the file, for messages.
        file: open.
        sections: its domains.
        shapes: of a row of each column; None: as long as in the first domain.
        classes: C.

    Raises:
        Damaged: a column is missing, or of another type or shape.
        InputError: a label is no class.
    """
    lengths = dict(shapes)
    for index, section in enumerate(sections):
        group = entry(entry(file, "domains"), str(index))
        for name, shape in lengths.items():
            found = entry(group, name)
            fits = isinstance(found, h5py.Dataset) and found.dtype.kind == _KINDS.get(name, "f")
            if not fits or len(found.shape) != len(shape) + 1 or found.shape[0] != section.rows:
                raise Damaged(f"{group.name}/{name} is no array with a row for each of {section.rows} samples")
            if any(wanted not in (None, got) for got, wanted in zip(found.shape[1:], shape, strict=True)):
                expected = ", ".join(str(wanted or "any") for wanted in shape)
                raise Damaged(f"{group.name}/{name} has rows of shape {list(found.shape[1:])}, expected [{expected}]")
        lengths = {name: tuple(entry(group, name).shape[1:]) for name in lengths}
        if "labels" in lengths:
            labels = torch.as_tensor(read_element(group, "labels"))
            check_classes(f"{path}: domain {section.name!r}", labels, classes, _REMEDY)


def check_rows(path: Path, domain: str, rows: Mapping[str, Array], first: int = 0) -> None:
    """Check that the floats of rows, apart from logits, are finite.

    Args:
        path: of the file, for messages.
        domain: its name.
        rows: columns with a row a sample.
        first: number of the first row.

    Raises:
        InputError: one is not finite.
    """
    for name, what in _FLOATS.items():
        if name in rows:
            check_finite(f"{path}: domain {domain!r}", what, torch.as_tensor(rows[name]), _REMEDY, first)


def check_moments(path: Path, domain: str, moments: Mapping[str, Array], size: int) -> None:
    """Check that mean and variance of a domain have a finite value for each of so many parameters.

    Raises:
        InputError: they have not, or a variance is below 0.
    """
    for name, values in moments.items():
        if values.dtype.kind != "f" or values.shape != (size,):
            raise InputError(
                f"{path}: domain {domain!r}: {name} has shape {list(values.shape)}, expected [{size}], a number for "
                f"each parameter; {_REMEDY}"
            )
        least = 0 if name == "variance" else -np.inf
        if not (np.isfinite(values) & (values >= least)).all():
            raise InputError(f"{path}: domain {domain!r}: {name} has values that cannot be; {_REMEDY}")
