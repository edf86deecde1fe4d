"""Files of domains: their rows, read in slices and checked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import torch
from attrs import frozen

from fishr.data.caches.encoding import Array, Damaged, entry, read_element, read_rows
from fishr.data.caches.hdf5 import opened
from fishr.data.domains import Split, domain_title
from fishr.errors import InputError
from fishr.row_checks import check_classes, check_finite

REMEDY = "make it again"
FLOATS = {"features": "a feature", "activations": "an activation", "deltas": "a derivative", "gradients": "a gradient"}
_KINDS = {"images": "u", "labels": "i", "ids": "i"}


@frozen
class Section:
    """A domain of a file.

    Args:
        name: Name of the domain.
        split: "training" or "evaluation".
        rows: n, the number of samples.
        environment: Name of the environment that the domain is a part of; None: the domain's own name.
    """

    name: str
    split: Split
    rows: int
    environment: str | None = None

    @property
    def title(self) -> str:
        """The name in tables and figures, with that of the environment."""
        return domain_title(self.name, self.environment)


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
        environment = read_element(group, "environment") if "environment" in group else None
        if environment is not None and not isinstance(environment, str):
            raise Damaged(f"{group.name}/environment is {environment!r}, not text")
        found.append(Section(name, split, rows, environment))
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


def class_names_of(tree: Mapping[str, Any], classes: int) -> tuple[str, ...] | None:
    """Return the names of the classes; None where they have none, and in files of earlier versions."""
    names = tree.get("class_names")
    if names is not None and not (isinstance(names, tuple) and len(set(cast(tuple[Any, ...], names))) == classes):
        raise Damaged(f"head/class_names is {names!r}, not a name for each of {classes} classes")
    return names


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
            check_classes(f"{path}: domain {section.name!r}", labels, classes, REMEDY)


def check_rows(path: Path, domain: str, rows: Mapping[str, Array], first: int = 0) -> None:
    """Check that the floats of rows, except logits, are finite."""
    for name, what in FLOATS.items():
        if name in rows:
            check_finite(f"{path}: domain {domain!r}", what, torch.as_tensor(rows[name]), REMEDY, first)


def check_moments(path: Path, domain: str, moments: Mapping[str, Array], size: int) -> None:
    """Check that mean and variance of a domain have a finite value for each parameter, and no variance is below 0."""
    for name, values in moments.items():
        if values.dtype.kind != "f" or values.shape != (size,):
            raise InputError(
                f"{path}: domain {domain!r}: {name} has shape {list(values.shape)}, expected [{size}], a number for "
                f"each parameter; {REMEDY}"
            )
        least = 0 if name == "variance" else -np.inf
        if not (np.isfinite(values) & (values >= least)).all():
            raise InputError(f"{path}: domain {domain!r}: {name} has values that cannot be; {REMEDY}")
