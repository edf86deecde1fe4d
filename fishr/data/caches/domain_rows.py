"""Files of domains: rows computed part by part, joined without holding a domain in memory, read in slices, checked."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
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
from fishr.data.domains import Split
from fishr.errors import InputError
from fishr.files import present
from fishr.row_checks import check_classes, check_finite

PART_BYTES = 1 << 24
_REMEDY = "make it again"
_FLOATS = {"features": "a feature", "activations": "an activation", "deltas": "a derivative", "gradients": "a gradient"}
_KINDS = {"images": "u", "labels": "i", "ids": "i"}


@frozen
class Section:
    """A domain of a file.

    Args:
        name: Name of the domain.
        split: "training" or "evaluation".
        rows: n, the number of samples.
    """

    name: str
    split: Split
    rows: int


def write_domains(
    path: Path,
    kind: str,
    provenance: Mapping[str, Any],
    head: Mapping[str, Any],
    sections: Sequence[Section],
    compute: Callable[[int, int, int], Mapping[str, Any]],
    columns: tuple[str, ...],
    part_rows: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
    summary: Callable[[Iterator[Tree]], Mapping[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> bool:
    """Write a file of domains in parts and return True; return False if it exists already. A killed run resumes."""
    # `compute` maps (domain, start, stop) to entries of these rows; `columns` are joined along their first axis, and
    # `summary` maps the entries of all parts of a domain to further entries. Finished parts stay in `<path>.parts`.
    # Parts of one device or size are not mixed with those of another.
    settings = {**provenance, "device of unfinished parts": provenance.get("device", ""), "rows of a part": part_rows}
    _check_unfinished(path, settings)
    blocks = [
        (domain, start, min(start + part_rows, section.rows))
        for domain, section in enumerate(sections)
        for start in range(0, section.rows, part_rows)
    ]
    with Parts(path, kind, cache_key(settings)) as parts:
        if present(path):
            with opened(path, kind) as file:
                check_fit(path, read_element(file, "provenance"), provenance)
            parts.remove()
            return False
        done, passed, total = set(parts.done), 0, sum(section.rows for section in sections)
        for number, (domain, start, stop) in enumerate(blocks):
            if number not in done:
                parts.write(number, {"settings": json.dumps(settings), "rows": compute(domain, start, stop)})
            passed += stop - start
            progress(passed, total)

        def rows(domain: int) -> Iterator[Tree]:
            numbers = (number for number, (of, _, _) in enumerate(blocks) if of == domain)
            return (cast(Tree, parts.read(number)["rows"]) for number in numbers)

        def fill(file: h5py.File) -> None:
            made = {**provenance, "created": datetime.now(UTC).isoformat(timespec="seconds")}
            whole = {"provenance": made, "key": cache_key(provenance), "head": head, **(more or {}), "domains": {}}
            write_tree(file, whole)
            domains = entry(file, "domains")
            for index, section in enumerate(sections):
                found = {} if summary is None else summary(rows(index))
                write_tree(domains, {str(index): {"name": section.name, "split": section.split, **found}})
                if columns:
                    _write_columns(entry(domains, str(index)), columns, section.rows, rows(index))

        write_whole(path, kind, fill)
        parts.remove()
    return True


def write_records(path: Path, kind: str, tree: Tree, count: int, records: Iterator[Tree]) -> None:
    """Write a tree with arrays of a row a record, one record in memory at a time; the caller has the lock."""
    first = next(records)
    flat = map(_flat, chain([first], records))

    def fill(file: h5py.File) -> None:
        write_tree(file, tree | {name: {} for name, value in first.items() if isinstance(value, dict)})
        _write_columns(file, list(_flat(first)), count, flat)

    write_whole(path, kind, fill)


def rows_a_part(row: Mapping[str, Array]) -> int:
    """Return how many rows take about 16 MiB, in multiples of 64, given one row [1, ...] of each column."""
    width = sum(column[:1].nbytes for column in row.values())
    return max(64, PART_BYTES // max(1, width) // 64 * 64)


def read_origin(file: h5py.File) -> tuple[dict[str, Any], str]:
    """Return the provenance and the key of an open file."""
    provenance, key = read_mapping(file, "provenance"), read_element(file, "key")
    if not isinstance(key, str):
        raise Damaged(f"/key is {key!r}, not text")
    for name, value in provenance.items():
        if isinstance(value, (dict, np.ndarray)):
            raise Damaged(f"/provenance/{name} is no text, number or list of texts")
    return provenance, key


def read_sections(file: h5py.File) -> tuple[Section, ...]:
    """Return the domains of an open file."""
    domains = entry(file, "domains")
    found, numbers = list[Section](), sorted(domains, key=int)
    for index in numbers:
        group = entry(domains, index)
        # Without per-sample columns there are no rows to count.
        rows = read_element(group, "count") if "count" in group else len(entry(group, "ids"))
        name, split = read_element(group, "name"), read_element(group, "split")
        if not isinstance(name, str) or split not in ("training", "evaluation") or type(rows) is not int or rows < 1:
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
    """Return rows of a domain's columns; HDF5 checks each chunk, and a whole column is checked against its hash too."""
    with opened(path, kind) as file:
        if read_element(file, "key") != key:
            raise InputError(f"{path}: is another file than was opened (its key has changed); open it again")
        domains = entry(file, "domains")
        if str(domain) not in domains:
            raise InputError(f"{path}: got domain {domain}, expected 0 to {len(domains) - 1}")
        group = entry(domains, str(domain))
        if start == 0 and stop is None:
            rows = {name: read_element(group, name) for name in columns}
        else:
            rows = {name: read_rows(entry(group, name), start, stop) for name in columns}
        check_rows(path, read_element(group, "name"), rows, start)
        return rows


def read_mapping(file: h5py.File, name: str) -> dict[str, Any]:
    found = read_element(file, name)
    if not isinstance(found, dict):
        raise Damaged(f"/{name} is no mapping")
    return cast(dict[str, Any], found)


def whole_number(tree: Mapping[str, Any], name: str, where: str) -> int:
    value = tree.get(name)
    if type(value) is not int or value < 1:
        raise Damaged(f"{where}/{name} is {value!r}, not a whole number of at least 1")
    return value


def check_columns(
    path: Path,
    file: h5py.File,
    sections: Sequence[Section],
    shapes: Mapping[str, tuple[int | None, ...]],
    classes: int,
) -> None:
    """Check the columns of each domain: types and row shapes (None: as in the first domain), and values of labels."""
    shapes = dict(shapes)
    for index, section in enumerate(sections):
        group = entry(entry(file, "domains"), str(index))
        for name, shape in shapes.items():
            found = entry(group, name)
            fits = isinstance(found, h5py.Dataset) and found.dtype.kind == _KINDS.get(name, "f")
            if not fits or len(found.shape) != len(shape) + 1 or found.shape[0] != section.rows:
                raise Damaged(f"{group.name}/{name} is no array with a row for each of {section.rows} samples")
            if any(wanted not in (None, got) for got, wanted in zip(found.shape[1:], shape, strict=True)):
                expected = ", ".join(str(wanted or "any") for wanted in shape)
                raise Damaged(f"{group.name}/{name} has rows of shape {list(found.shape[1:])}, expected [{expected}]")
            shapes[name] = tuple(found.shape[1:])
        if "labels" in shapes:
            labels = torch.as_tensor(read_element(group, "labels"))
            check_classes(f"{path}: domain {section.name!r}", labels, classes, _REMEDY)


def check_rows(path: Path, domain: str, rows: Mapping[str, Array], first: int = 0) -> None:
    """Check that the floats of rows, except logits, are finite."""
    for name, what in _FLOATS.items():
        if name in rows:
            check_finite(f"{path}: domain {domain!r}", what, torch.as_tensor(rows[name]), _REMEDY, first)


def stored_type(path: Path, provenance: Mapping[str, Any]) -> "np.dtype[Any]":
    """Return the type of stored floats that the provenance names."""
    dtype = provenance.get("dtype")
    if dtype not in ("float32", "float16"):
        raise InputError(f"{path}: got features of type {dtype!r}, expected 'float32' or 'float16'")
    return np.dtype(str(dtype))


def as_stored(
    path: Path, domain: str, rows: Mapping[str, Array], types: Mapping[str, Any], first: int
) -> dict[str, Array]:
    """Return rows as the types they are stored in, by column; refuse floats beyond their type, and NaN."""
    with np.errstate(over="ignore"):
        stored = {column: np.asarray(rows[column]).astype(dtype, copy=False) for column, dtype in types.items()}
    for column in _FLOATS.keys() & stored.keys():
        if np.isinf(stored[column]).any() and not np.isinf(rows[column]).any():
            largest = float(np.abs(rows[column]).max())
            raise InputError(
                f"{path}: {_FLOATS[column]} of domain {domain!r} is {largest:.4g}, beyond {types[column]}; use float32"
            )
    check_rows(path, domain, stored, first)
    return stored


def check_moments(path: Path, domain: str, moments: Mapping[str, Array], size: int) -> None:
    """Check that mean and variance of a domain have a finite value for each parameter, and no variance is below 0."""
    for name, values in moments.items():
        if values.dtype.kind != "f" or values.shape != (size,):
            raise InputError(
                f"{path}: domain {domain!r}: {name} has shape {list(values.shape)}, expected [{size}], a number for "
                f"each parameter; {_REMEDY}"
            )
        least = 0 if name == "variance" else -np.inf
        if not (np.isfinite(values) & (values >= least)).all():
            raise InputError(f"{path}: domain {domain!r}: {name} has values that cannot be; {_REMEDY}")


def _check_unfinished(path: Path, settings: Mapping[str, Any]) -> None:
    unfinished = Parts.existing(path)
    found = None if unfinished is None else unfinished.read(unfinished.done[0]).get("settings")
    # Parts of another kind have no settings, and are refused for their kind.
    if isinstance(found, str):
        remedy = "finish it with its own settings, remove the folder, or choose another name"
        check_fit(Path(f"{path}.parts"), json.loads(found), settings, remedy=remedy)


def _flat(record: Tree, place: str = "") -> dict[str, Array]:
    """Return the arrays of a record as a row each, by their places in the file."""
    found = dict[str, Array]()
    for name, value in record.items():
        found |= (
            _flat(value, f"{place}{name}/") if isinstance(value, dict) else {f"{place}{name}": np.asarray(value)[None]}
        )
    return found


def _write_columns(group: h5py.Group, columns: Sequence[str], rows: int, parts: Iterator[Mapping[str, Any]]) -> None:
    datasets, hashes, start = dict[str, h5py.Dataset](), {name: sha256() for name in columns}, 0
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
