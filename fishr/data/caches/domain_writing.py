"""Files of domains, written: rows computed part by part, and joined without a whole domain in memory."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from fishr.data.caches.domain_rows import FLOATS, Section, check_rows
from fishr.data.caches.encoding import (
    Array,
    Tree,
    checked_array,
    create_rows,
    entry,
    read_element,
    stamp,
    write_tree,
)
from fishr.data.caches.hdf5 import opened, write_whole
from fishr.data.caches.provenance import cache_key, check_fit
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError
from fishr.files import present

PART_BYTES = 1 << 24
Compute = Callable[[int, int, int], Mapping[str, Any]]  # (domain, start, stop) to entries of these rows


def write_domains(
    path: Path,
    kind: str,
    provenance: Mapping[str, Any],
    head: Mapping[str, Any],
    sections: Sequence[Section],
    compute: Compute,
    columns: tuple[str, ...],
    part_rows: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
    summary: Callable[[Iterator[Tree]], Mapping[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
) -> bool:
    """Write a file of domains in parts and return True; return False if it exists already. A killed run resumes."""
    # `columns` are joined along their first axis, and
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
                named = {} if section.environment is None else {"environment": section.environment}
                write_tree(domains, {str(index): {"name": section.name, "split": section.split, **named, **found}})
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


def stored_type(path: Path, provenance: Mapping[str, Any]) -> "np.dtype[Any]":
    """Return the type of stored floats that the provenance names."""
    dtype = provenance.get("dtype")
    if dtype not in ("float32", "float16"):
        raise InputError(f"{path}: got features of type {dtype!r}, expected 'float32' or 'float16'")
    return np.dtype(str(dtype))


def as_stored(
    path: Path, sections: Sequence[Section], compute: Compute, types: Mapping[str, "np.dtype[Any] | type[Any]"]
) -> Compute:
    """Return ``compute`` with its columns in the types they are stored in; it refuses NaN, and floats beyond them."""

    def stored(domain: int, start: int, stop: int) -> dict[str, Array]:
        rows, name = compute(domain, start, stop), sections[domain].name
        with np.errstate(over="ignore"):
            found = {column: np.asarray(rows[column]).astype(dtype, copy=False) for column, dtype in types.items()}
        for column in FLOATS.keys() & found.keys():
            if np.isinf(found[column]).any() and not np.isinf(rows[column]).any():
                largest = float(np.abs(rows[column]).max())
                raise InputError(
                    f"{path}: {FLOATS[column]} of domain {name!r} is {largest:.4g}, beyond {types[column]}; use float32"
                )
        check_rows(path, name, found, start)
        return found

    return stored


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
