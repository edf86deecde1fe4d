"""Encode values in an HDF5 group: each element with its encoding and, if it holds data, the hash of its bytes.

The values are numbers, text and arrays; nothing is pickled or unpickled.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, TypeAlias, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from fishr.errors import InputError
from fishr.types import Layout

Array: TypeAlias = NDArray[Any]
Tree: TypeAlias = dict[str, "Array | str | bool | int | float | tuple[str, ...] | Tree | None"]

# Of each kind of file and of the elements in it.
VERSION = 1
TYPE, EDITION, HASH = "encoding-type", "encoding-version", "sha256"
_ROW_BYTES = 1 << 19
_WIDE_ROW, _WIDE_ARRAY = 1 << 16, 1 << 12
_LONGEST_ATTRIBUTE = 1 << 12


class Damaged(Exception):
    """A file holds something else than was written into it."""


def write_tree(group: h5py.Group, tree: Mapping[str, Any], where: str = "") -> None:
    """Write arrays, texts, numbers, tuples of texts, None and mappings into a group at ``where``."""
    for key, value in tree.items():
        at = f"{where}/{key}"
        if not key or "/" in key or "\0" in key or key in (".", ".."):
            raise InputError(f"{at}: got the name {key!r}, expected text that is not empty and has no '/'")
        match value:
            case Mapping():
                part = group.create_group(key, track_order=True)
                stamp(part, "mapping")
                write_tree(part, cast(Mapping[str, Any], value), at)
            case None:
                stamp(group.create_group(key), "none")
            case str():
                _write(group, key, "text", _text([value], at).reshape(()))
            case tuple() | list() if all(isinstance(each, str) for each in cast(tuple[Any, ...], value)):
                _write(group, key, "texts", _text(list(cast(tuple[str, ...], value)), at))
            case bool() | np.bool_():
                _write(group, key, "number", np.array(bool(value)))
            case int() | float() | np.number():
                _write(group, key, "number", _number(value, at))
            case np.ndarray():
                _write(group, key, "array", checked_array(value, at))
            case _:
                raise InputError(f"{at}: got a {type(value).__name__}, expected an array, text, number or mapping")


def read_tree(group: h5py.Group) -> Tree:
    """Return the entries of a group, each checked against its hash."""
    return {str(key): read_element(group, str(key)) for key in group}


def read_element(group: h5py.Group, key: str) -> Any:
    """Return one entry of a group, checked against its hash."""
    item: Any = entry(group, key)
    found, edition = attribute(item, TYPE), attribute(item, EDITION)
    if edition != VERSION:
        raise Damaged(f"{item.name}: got encoding version {edition}, expected {VERSION}")
    if found == "mapping" and isinstance(item, h5py.Group):
        return read_tree(item)
    if found == "none":
        return None
    if found not in ("array", "text", "texts", "number") or not isinstance(item, h5py.Dataset):
        raise Damaged(f"{item.name}: got encoding {found!r}, expected one of array, text, texts, number, mapping, none")
    values = read_rows(item)
    if _hash(values) != attribute(item, HASH):
        raise Damaged(f"{item.name}: its bytes are not those that were written")
    if found == "array":
        return np.asarray(values)
    if found == "number":
        return values.item()
    texts = tuple(bytes(each).decode() for each in np.atleast_1d(values))
    return texts[0] if found == "text" else texts


def entry(group: h5py.Group, key: str) -> Any:
    """Return an entry of this very file; a link could lead to another file, or in a circle."""
    if key not in group:
        raise Damaged(f"{group.name}: it lacks {key}")
    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise Damaged(f"{group.name}: {key} leads elsewhere")
    return group[key]


def read_rows(dataset: h5py.Dataset, start: int = 0, stop: int | None = None) -> Array:
    """Return rows of a dataset; HDF5 checks each chunk that it reads."""
    if dataset.dtype.kind not in "biufS":
        raise Damaged(f"{dataset.name}: got type {dataset.dtype}, expected numbers or text")
    if dataset.external:
        raise Damaged(f"{dataset.name}: its bytes are in another file")
    # Absent chunks are read as zeros, and a forged shape asks for all memory.
    if dataset.nbytes > dataset.id.get_storage_size():
        raise Damaged(f"{dataset.name}: less is stored than its shape {dataset.shape} needs")
    return dataset[()] if dataset.ndim == 0 or (start == 0 and stop is None) else dataset[start:stop]


def create_rows(group: h5py.Group, key: str, rows: int, like: Array) -> h5py.Dataset:
    """Create an empty dataset with rows like an array's, in full-width chunks that HDF5 checks; the hash follows."""
    shape = (rows, *like.shape[1:])
    width = max(1, like.dtype.itemsize * int(np.prod(shape[1:])))
    # Wide rows, such as images and activations, are read one by one, in any order.
    together = 1 if width >= (_WIDE_ROW if len(shape) < 3 else _WIDE_ARRAY) else max(1, min(rows, _ROW_BYTES // width))
    chunks = (together, *shape[1:]) if 0 not in shape else None
    return group.create_dataset(key, shape, like.dtype, chunks=chunks, fletcher32=chunks is not None)


def stamp(item: h5py.Group | h5py.Dataset, encoding: str, digest: str | None = None) -> None:
    """Set the encoding of an element and, for data, the hash of its bytes."""
    set_text(item, TYPE, encoding)
    item.attrs[EDITION] = VERSION
    if digest is not None:
        set_text(item, HASH, digest)


def set_text(item: h5py.Group | h5py.Dataset, name: str, value: str) -> None:
    """Set an attribute of fixed length: it is in the element's header, which has a checksum; HDF5's heap has none."""
    item.attrs.create(name, _text([value], name)[0])


def attribute(item: h5py.Group | h5py.Dataset, name: str) -> str | int | bool | None:
    """Return an attribute that is text or a number; None if there is none of this kind."""
    try:
        found = item.attrs.get_id(name)
    except KeyError:
        return None
    # Nothing that is written is longer, and a forged one could take all memory.
    if found.dtype.kind not in "Siub" or found.shape or found.dtype.itemsize > _LONGEST_ATTRIBUTE:
        return None
    # By its own handle: looked up by name once more, a file of many elements takes half as long again to check.
    value: Any = np.empty((), found.dtype)
    found.read(value)
    return value.item().decode() if found.dtype.kind == "S" else value.item()


def checked_array(value: Array, where: str) -> Array:
    """Return the array in C order and little-endian; refuse a type without encoding."""
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise InputError(f"{where}: got an array of {value.dtype}, expected bool, integers or float16 to float64")
    return np.require(value, value.dtype.newbyteorder("<"), "C")


def structure_digest(group: h5py.Group) -> str:
    """Return a hash over names, encodings, types, shapes and hashes of everything in a group."""
    lines: list[str] = []

    def visit(name: str, item: Any) -> None:
        attributes = [str(attribute(item, each)) for each in (TYPE, EDITION, HASH)]
        shape = (str(item.dtype), str(item.shape)) if isinstance(item, h5py.Dataset) else ()
        lines.append("\t".join((name, *attributes, *shape)))

    group.visititems(visit)
    return sha256("\n".join(sorted(lines)).encode()).hexdigest()


def layout_tree(layout: Layout) -> Tree:
    """Return the parameters of each column of a statistic as a tree."""
    shapes = zip(layout.names, layout.shapes, strict=True)
    return {"names": layout.names, "shapes": {name: np.array(shape, np.int64) for name, shape in shapes}}


def layout_of(tree: Any) -> Layout:
    """Return the layout of a tree that ``layout_tree`` made."""
    return Layout(tree["names"], tuple(tuple(tree["shapes"][name].tolist()) for name in tree["names"]))


def _write(group: h5py.Group, key: str, encoding: str, values: Array) -> None:
    if values.ndim:
        dataset = create_rows(group, key, len(values), values)
        dataset[...] = values
    else:
        dataset = group.create_dataset(key, data=values)
    stamp(dataset, encoding, _hash(values))


def _hash(values: Array) -> str:
    return sha256(np.ascontiguousarray(values).data).hexdigest()


def _number(value: Any, where: str) -> Array:
    array = np.array(value)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: got the number {value}, expected one of at most 64 bits")
    return array


def _text(values: list[str], where: str) -> Array:
    try:
        encoded = [each.encode() for each in values]
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: got text that is no Unicode, expected text that is") from error
    if any(b"\0" in each for each in encoded):
        raise InputError(f"{where}: got text with a zero byte, expected text without")
    width = max([1, *map(len, encoded)])
    return np.array(encoded, h5py.string_dtype("utf-8", width))
