"""Describe what a file of ours holds, and verify every byte of it."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from attrs import frozen

from fishr.data.caches.activation_cache import open_activations
from fishr.data.caches.domain_rows import Section, read_sections
from fishr.data.caches.domain_writing import rows_a_part
from fishr.data.caches.encoding import HASH, TYPE, Damaged, attribute, entry, read_element, read_rows
from fishr.data.caches.feature_cache import open_features
from fishr.data.caches.gradient_cache import GradientCache, open_gradients
from fishr.data.caches.hdf5 import UNREADABLE, Header, header_of, opened
from fishr.data.caches.image_cache import open_images
from fishr.errors import reason

_BYTES = 1 << 24
SECTIONED = ("fishr-features", "fishr-activations", "fishr-gradients", "fishr-images")


@frozen
class Element:
    """A data set of a file: path, encoding, type such as "float32", shape, and bytes on disk."""

    name: str
    encoding: str
    type: str
    shape: tuple[int, ...]
    bytes: int


@frozen(eq=False)
class Description:
    """The content of a file.

    Args:
        key: Hash of everything that decides the rows; None for kinds without a key.
        provenance: Sources and settings; empty for kinds without it.
    """

    header: Header
    key: str | None
    provenance: dict[str, Any]
    sections: tuple[Section, ...]
    elements: tuple[Element, ...]
    bytes: int


def describe(path: Path) -> Description:
    """Return what a file of any kind holds; its arrays are not read.

    Raises:
        InputError: The file is absent, of another program, newer, incomplete, or its structure is damaged.

    Example:
        >>> import tempfile
        >>> from fishr.data.caches.hdf5 import save_tree
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_tree(Path(folder, "a.h5"), "fishr-surface", {"loss": np.zeros((2, 3))})
        ...     describe(Path(folder, "a.h5")).elements[0].shape
        (2, 3)
    """
    with opened(path, None) as file:
        header = header_of(file)
        provenance = read_element(file, "provenance") if "provenance" in file else {}
        key = read_element(file, "key") if "key" in file else None
        sections = read_sections(file) if header.kind in SECTIONED else ()
        elements = tuple(
            Element(str(d.name), str(attribute(d, TYPE)), str(d.dtype), d.shape, d.id.get_storage_size())
            for d in _datasets(file)
        )
        return Description(header, key, provenance, sections, elements, path.stat().st_size)


def verify(path: Path, progress: Callable[[str, int, int], object] = lambda what, done, total: None) -> tuple[str, ...]:
    """Read every byte of a file, a few MiB at a time, compare it with its hash, and check the values.

    Args:
        path: The file.
        progress: Called with "bytes", then "values", the parts of the file that are checked, and all.

    Returns:
        A line for each data set that is damaged.

    Raises:
        InputError: The file is absent, of another program, newer, incomplete, or its structure is damaged; or features,
            gradients or labels are impossible.
    """
    with opened(path, None) as file:
        kind, datasets, done = header_of(file).kind, _datasets(file), 0
        total = sum(len(_parts(dataset)) for dataset in datasets)

        def read() -> None:
            nonlocal done
            done += 1
            progress("bytes", done, total)

        problems = tuple(problem for dataset in datasets if (problem := _problem(dataset, read)))
    if not problems and kind in SECTIONED:
        _check_values(path, kind, progress)
    return problems


def _check_values(path: Path, kind: str, progress: Callable[[str, int, int], object]) -> None:
    """Check labels, shapes and floats as readers of the file do."""
    if kind == "fishr-images":
        images = open_images(path)
        for index in range(len(images.sections)):
            images.domain(index)
            progress("values", index + 1, len(images.sections))
        return
    openers = {
        "fishr-features": open_features,
        "fishr-activations": open_activations,
        "fishr-gradients": open_gradients,
    }
    cache = openers[kind](path)
    if isinstance(cache, GradientCache):
        cache.moments()
    parts = list[tuple[int, int, int]]()
    for index, section in enumerate(cache.sections):
        rows = rows_a_part(cache.domain(index, stop=1))
        parts += [(index, start, start + rows) for start in range(0, section.rows, rows)]
    for done, part in enumerate(parts, 1):
        cache.domain(*part)
        progress("values", done, len(parts))


def _datasets(group: h5py.Group) -> list[h5py.Dataset]:
    found = list[h5py.Dataset]()
    for key in group:
        item = entry(group, str(key))
        found += _datasets(item) if isinstance(item, h5py.Group) else [item]
    return found


def _problem(dataset: h5py.Dataset, read: Callable[[], object]) -> str:
    try:
        if _hash(dataset, read) == attribute(dataset, HASH):
            return ""
        return f"{dataset.name}: its bytes are not those that were written"
    except Damaged as error:
        return str(error)
    except UNREADABLE as error:
        return f"{dataset.name}: {reason(error)}"


def _parts(dataset: h5py.Dataset) -> range:
    """Return the first row of each part of a data set that is read at once."""
    count = len(dataset) if dataset.ndim else 1
    return range(0, count, max(1, _BYTES * count // max(1, dataset.nbytes)))


def _hash(dataset: h5py.Dataset, read: Callable[[], object]) -> str:
    digest, parts = sha256(), _parts(dataset)
    for start in parts:
        digest.update(np.ascontiguousarray(read_rows(dataset, start, start + parts.step)).data)
        read()
    return digest.hexdigest()
