"""Feature caches: what a featurizer makes of each domain, computed once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from fishr.data.caches.domain_rows import (
    PART_BYTES,
    Content,
    Section,
    check_columns,
    check_rows,
    classes_of,
    read_columns,
    read_mapping,
    read_origin,
    read_sections,
    whole_number,
    write_domains,
)
from fishr.data.caches.encoding import Array
from fishr.data.caches.hdf5 import opened
from fishr.data.caches.provenance import check_fit
from fishr.errors import InputError

KIND = "fishr-features"
COLUMNS = ("features", "labels", "logits", "ids")


@frozen(eq=False)
class FeatureCache:
    """A file of features, read on demand; it is open only while something is read.

    Args:
        path: of the file.
        key: hash of everything that decides its rows.
        provenance: what that is.
        head: the head's description, its number of outputs and its parameters.
        sections: the domains.

    Example:
        >>> cache = FeatureCache(Path("nowhere.h5"), "0123", {}, {}, (Section("photo", "training", 3),))
        >>> cache.sections[0].name
        'photo'
    """

    path: Path
    key: str
    provenance: dict[str, Any]
    head: dict[str, Any]
    sections: tuple[Section, ...]

    def domain(self, index: int, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Rows of a domain: features [n, F] float32, labels [n] int64, logits [n, C] float32, ids [n] int64.

        Args:
            index: of the domain in ``sections``.
            start: the first row.
            stop: the row after the last one; None: to the end.

        Raises:
            InputError: no such domain, a feature that is not finite, or the file is damaged or another one by now.
        """
        rows = read_columns(self.path, KIND, self.key, index, COLUMNS, start, stop)
        check_rows(self.path, self.sections[index].name, rows, start)
        return rows | {"features": rows["features"].astype(np.float32, copy=False)}


def open_features(path: Path) -> FeatureCache:
    """A file that ``fishr cache features`` wrote, its rows still unread.

    Args:
        path: of the file.

    Raises:
        InputError: absent, another program's, of another kind, newer, incomplete or damaged, or with labels that are
            no classes.

    Example:
        >>> open_features(Path("nowhere.h5"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    with opened(path, KIND) as file:
        (provenance, key), head = read_origin(file), read_mapping(file, "head")
        sections, outputs = read_sections(file), whole_number(head, "outputs", "head")
        shapes = {"features": (head.get("features"),), "labels": (), "logits": (outputs,), "ids": ()}
        check_columns(path, file, sections, shapes, classes_of(outputs))
        return FeatureCache(path, key, provenance, head, sections)


def write_features(
    path: Path,
    provenance: Mapping[str, Any],
    head: Mapping[str, Any],
    sections: Sequence[Section],
    compute: Callable[[int, int, int], Mapping[str, Array]],
    part_rows: int,
    progress: Callable[[int], object] = lambda rows: None,
) -> bool:
    """Write a feature cache, part by part; go on where a killed writer stopped.

    Args:
        path: where; its folder exists.
        provenance: everything that decides the rows; its "dtype" is "float32" or "float16".
        head: its "text", "outputs" and "parameters".
        sections: the domains.
        compute: (domain, start, stop) to features [n, F], labels [n], logits [n, C] and ids [n] of these rows.
        part_rows: rows computed at a time, which bounds memory and what a kill costs.
        progress: is told the rows of each part that is there.

    Returns:
        Whether it was written; False if it was there already, made of the same.

    Raises:
        InputError: a file made of something else is there, the first field that differs is named; another process
            is writing it; or a feature is not finite or too large for float16.
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> def compute(domain, start, stop):
        ...     one = np.ones(stop - start)
        ...     return {"features": one[:, None], "labels": one, "logits": one[:, None], "ids": one}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, sections = Path(folder, "a.h5"), [Section("photo", "training", 3)]
        ...     written = write_features(path, {"dtype": "float16"}, {"outputs": 1}, sections, compute, part_rows=2)
        ...     open_features(path).domain(0, start=2)["features"]
        array([[1.]], dtype=float32)
    """
    dtype = provenance.get("dtype")
    if dtype not in ("float32", "float16"):
        raise InputError(f"{path}: got features of type {dtype!r}, expected 'float32' or 'float16'")

    def rows(domain: int, start: int, stop: int) -> dict[str, Array]:
        found = compute(domain, start, stop)
        types = {"features": np.dtype(str(dtype)), "labels": np.int64, "logits": np.float32, "ids": np.int64}
        with np.errstate(over="ignore"):
            cast_ = {name: np.asarray(found[name]).astype(types[name], copy=False) for name in COLUMNS}
        if np.isinf(cast_["features"]).any() and not np.isinf(found["features"]).any():
            largest = float(np.abs(found["features"]).max())
            raise InputError(
                f"{path}: a feature of domain {sections[domain].name!r} is {largest:.4g}, beyond {dtype}; use float32"
            )
        check_rows(path, sections[domain].name, cast_, start)
        return cast_

    content = Content(KIND, provenance, head, sections, rows, COLUMNS)
    return write_domains(path, content, part_rows, progress)


def merge_features(
    paths: Sequence[Path], out: Path, progress: Callable[[int], object] = lambda rows: None
) -> FeatureCache:
    """One file of the domains of several, all made by the same featurizer of the same data.

    The result has the key of a file that was made of all the domains at once.

    Args:
        paths: of two or more feature caches, each domain in one of them.
        out: where the result goes.
        progress: is told the rows of each part that is there.

    Raises:
        InputError: they differ in more than their domains, the field is named; two hold the same domain; one
            cannot be read; or something else is at ``out``.
        RunFailed: it could not be written.

    Example:
        >>> merge_features([Path("a.h5")], Path("b.h5"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: merge: got 1 file, expected at least 2
    """
    if len(paths) < 2:
        raise InputError(f"merge: got {len(paths)} file{'' if len(paths) == 1 else 's'}, expected at least 2")
    caches = [open_features(path) for path in paths]
    first = caches[0]
    for cache in caches[1:]:
        remedy = f"merge files that differ from {first.path} in their domains alone"
        check_fit(cache.path, cache.provenance, first.provenance, but=("domains",), remedy=remedy)
    parts = [(section, cache, index) for cache in caches for index, section in enumerate(cache.sections)]
    parts.sort(key=lambda part: part[0].split != "training")
    _check_apart(parts)

    def compute(domain: int, start: int, stop: int) -> dict[str, Array]:
        _, cache, index = parts[domain]
        return cache.domain(index, start, stop)

    sections = [section for section, _, _ in parts]
    provenance = first.provenance | {"domains": tuple(section.name for section in sections)}
    row = caches[0].domain(0, stop=1)
    write_features(out, provenance, first.head, sections, compute, rows_a_part(row), progress)
    return open_features(out)


def rows_a_part(row: Mapping[str, Array]) -> int:
    """How many rows are about 16 MiB, in whole blocks of 64.

    Args:
        row: [1, ...] of each column.

    Example:
        >>> rows_a_part({"features": np.zeros((1, 512), np.float32)})
        8192
    """
    width = sum(column[:1].nbytes for column in row.values())
    return max(64, PART_BYTES // max(1, width) // 64 * 64)


def _check_apart(parts: "list[tuple[Section, FeatureCache, int]]") -> None:
    seen = dict[str, Path]()
    for section, cache, _ in parts:
        if section.name in seen:
            raise InputError(
                f"{cache.path}: has domain {section.name!r}, as has {seen[section.name]}; expected each domain once"
            )
        seen[section.name] = cache.path
