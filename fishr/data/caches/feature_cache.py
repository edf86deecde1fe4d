"""Feature caches: the features of each domain, computed once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from fishr.data.caches.domain_rows import (
    Section,
    check_columns,
    class_names_of,
    read_columns,
    read_mapping,
    read_origin,
    read_sections,
    whole_number,
)
from fishr.data.caches.domain_writing import Compute, as_stored, rows_a_part, stored_type, write_domains
from fishr.data.caches.encoding import Array
from fishr.data.caches.hdf5 import opened
from fishr.data.caches.provenance import check_fit
from fishr.errors import InputError

KIND = "fishr-features"
COLUMNS = ("features", "labels", "logits", "ids")


@frozen(eq=False)
class FeatureCache:
    """A file of features, read on demand and open only while something is read.

    Args:
        key: Hash of everything that decides its rows.
        head: The head's description, its number of outputs and its parameters.
        class_names: Name of each class; None where they have none.
    """

    path: Path
    key: str
    provenance: dict[str, Any]
    head: dict[str, Any]
    sections: tuple[Section, ...]
    class_names: tuple[str, ...] | None

    @property
    def classes(self) -> int:
        """Number of classes; a single output tells two apart."""
        return max(2, self.head["outputs"])

    def domain(self, index: int, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Return rows of a domain: features [n, F] and logits [n, C] float32, labels [n] and ids [n] int64.

        Raises:
            InputError: No such domain, a feature is not finite, or the file is damaged or was replaced.
        """
        rows = read_columns(self.path, KIND, self.key, index, COLUMNS, start, stop)
        return rows | {"features": rows["features"].astype(np.float32, copy=False)}


def open_features(path: Path) -> FeatureCache:
    """Open a file of ``fishr cache features``; its rows are read on demand.

    Raises:
        InputError: The file is absent, of another program or kind, newer, incomplete or damaged, or a label is no
            class.
    """
    with opened(path, KIND) as file:
        (provenance, key), head, sections = read_origin(file), read_mapping(file, "head"), read_sections(file)
        outputs = whole_number(head, "outputs", "head")
        # A single output tells two classes apart.
        classes = max(2, outputs)
        shapes = {"features": (head.get("features"),), "labels": (), "logits": (outputs,), "ids": ()}
        check_columns(path, file, sections, shapes, classes)
        return FeatureCache(path, key, provenance, head, sections, class_names_of(head, classes))


def write_features(
    path: Path,
    provenance: Mapping[str, Any],
    head: Mapping[str, Any],
    sections: Sequence[Section],
    compute: Compute,
    part_rows: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> bool:
    """Write a feature cache in parts and return True; return False if it exists already. A killed run resumes."""
    # `compute` maps (domain, start, stop) to features [n, F], labels [n], logits [n, C] and ids [n] of these rows.
    dtype = stored_type(path, provenance)
    types = {"features": dtype, "labels": np.int64, "logits": np.float32, "ids": np.int64}
    rows = as_stored(path, sections, compute, types)
    return write_domains(path, KIND, provenance, head, sections, rows, COLUMNS, part_rows, progress)


def merge_features(
    paths: Sequence[Path], out: Path, progress: Callable[[int, int], object] = lambda done, total: None
) -> FeatureCache:
    """Merge the domains of several files that one featurizer made of the same data, with the key of one whole file.

    Args:
        paths: Two or more feature caches, each domain in one of them.

    Raises:
        InputError: The files differ in more than their domains, two have the same domain, one cannot be read, or
            ``out`` was made of something else.
        RunFailed: It could not be written.
    """
    if len(paths) < 2:
        raise InputError(f"merge: got {len(paths)} file{'' if len(paths) == 1 else 's'}, expected at least 2")
    caches = [open_features(path) for path in paths]
    first, places = caches[0], dict[str, Path]()
    for cache in caches:
        remedy = f"merge files that differ from {first.path} in their domains alone"
        check_fit(cache.path, cache.provenance, first.provenance, but=("domains",), remedy=remedy)
    parts = [(section, cache, index) for cache in caches for index, section in enumerate(cache.sections)]
    parts.sort(key=lambda part: part[0].split != "training")
    for section, cache, _ in parts:
        if section.name in places:
            raise InputError(
                f"{cache.path}: has domain {section.name!r}, as has {places[section.name]}; expected each domain once"
            )
        places[section.name] = cache.path

    def compute(domain: int, start: int, stop: int) -> dict[str, Array]:
        _, cache, index = parts[domain]
        return cache.domain(index, start, stop)

    sections = [section for section, _, _ in parts]
    provenance = first.provenance | {"domains": tuple(section.name for section in sections)}
    write_features(out, provenance, first.head, sections, compute, rows_a_part(first.domain(0, stop=1)), progress)
    return open_features(out)
