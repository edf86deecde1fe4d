"""Whether a file that is whole holds the rows of domains: a faulty or hostile program can write one that does not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch

from fishr.data.caches.encoding import Array, Damaged, entry, read_element
from fishr.data.caches.streams import Section
from fishr.data.value_checks import check_classes, check_finite
from fishr.errors import InputError

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
