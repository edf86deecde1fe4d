"""Activation caches: the outputs of one layer of a network, and the weights of the layers above it."""

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
from fishr.data.caches.encoding import Array, Damaged
from fishr.data.caches.hdf5 import opened
from fishr.data.caches.stored_rows import StoredRows

KIND = "fishr-activations"
COLUMNS = ("activations", "labels", "ids")


@frozen(eq=False)
class ActivationCache:
    """A file of a layer's outputs, read on demand and open only while something is read.

    Args:
        key: Hash of everything that decides its rows.
        at: Full name of the layer in the featurizer.
        inputs: Shape of an input of the whole network.
        shape: Shape of the layer's output.
        classes: Number of classes.
        class_names: Name of each class; None where they have none.
        below_sha256: Hash of the weights that the outputs were computed with.
        weights: Parameters and buffers of the layers above, by name.
    """

    path: Path
    key: str
    provenance: dict[str, Any]
    at: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...] | None
    below_sha256: str
    weights: dict[str, Array]
    sections: tuple[Section, ...]

    def labels(self, index: int) -> Array:
        """Return the labels [n] int64 of a domain.

        Raises:
            InputError: No such domain, or the file is damaged or was replaced.
        """
        return read_columns(self.path, KIND, self.key, index, ("labels",))["labels"]

    def rows(self, index: int) -> StoredRows:
        """Return a reader of a domain's activations, one by one in any thread."""
        return StoredRows(self.path, KIND, self.key, index, "activations")

    def domain(self, index: int, start: int = 0, stop: int | None = None) -> dict[str, Array]:
        """Return rows of a domain: activations [n, ...] as stored, labels [n] and ids [n] int64, all checked."""
        return read_columns(self.path, KIND, self.key, index, COLUMNS, start, stop)


def open_activations(path: Path) -> ActivationCache:
    """Open a file of ``fishr cache features --at LAYER``; its rows are read on demand.

    Raises:
        InputError: The file is absent, of another program or kind, newer, incomplete or damaged, or a label is no
            class.
    """
    with opened(path, KIND) as file:
        (provenance, key), layer, sections = read_origin(file), read_mapping(file, "head"), read_sections(file)
        classes, at, below, weights = (
            whole_number(layer, "classes", "head"),
            *map(layer.get, ("at", "below_sha256", "weights")),
        )
        if not isinstance(at, str) or not isinstance(below, str) or not isinstance(weights, dict):
            raise Damaged("head does not describe a layer")
        inputs, shape = (tuple(np.asarray(layer.get(name)).tolist()) for name in ("inputs", "shape"))
        if not all(type(side) is int and side > 0 for side in (*inputs, *shape)) or not shape or not inputs:
            raise Damaged("head/inputs or head/shape is no shape")
        names = class_names_of(layer, classes)
        check_columns(path, file, sections, {"activations": shape, "labels": (), "ids": ()}, classes)
        return ActivationCache(path, key, provenance, at, inputs, shape, classes, names, below, weights, sections)


def write_activations(
    path: Path,
    provenance: Mapping[str, Any],
    layer: Mapping[str, Any],
    sections: Sequence[Section],
    compute: Compute,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> bool:
    """Write an activation cache in parts and return True; return False if it exists already. A killed run resumes."""
    # `compute` maps (domain, start, stop) to activations [n, *shape], labels [n] and ids [n] of these rows.
    dtype = stored_type(path, provenance)
    types = {"activations": dtype, "labels": np.int64, "ids": np.int64}
    rows = as_stored(path, sections, compute, types)
    part = rows_a_part({"activations": np.empty((1, *layer["shape"].tolist()), dtype)})
    return write_domains(path, KIND, provenance, layer, sections, rows, COLUMNS, part, progress)
