"""Image caches: the images of each environment, decoded and resized once."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from attrs import frozen

from fishr.data.caches.domain_rows import Section, check_columns, read_columns, read_origin, read_sections, whole_number
from fishr.data.caches.domain_writing import rows_a_part, write_domains
from fishr.data.caches.encoding import Array, Damaged, entry, read_element
from fishr.data.caches.hdf5 import opened
from fishr.data.caches.stored_rows import StoredRows

KIND = "fishr-images"
COLUMNS = ("images", "labels", "ids")


@frozen(eq=False)
class ImageCache:
    """A file of images, read on demand and open only while something is read.

    Args:
        key: Hash of everything that decides its rows, the content of the image files included.
        size: Side of the images, pixels.
        resizing: How they were resized, in words.
    """

    path: Path
    key: str
    provenance: dict[str, Any]
    classes: tuple[str, ...]
    size: int
    resizing: str
    sections: tuple[Section, ...]

    def domain(self, index: int) -> tuple[tuple[str, ...], Array]:
        """Return the listed paths [n] and the labels [n] int64 of a domain's images.

        Raises:
            InputError: No such domain, or the file is damaged or was replaced.
        """
        labels = read_columns(self.path, KIND, self.key, index, ("labels",))["labels"]
        with opened(self.path, KIND) as file:
            paths = read_element(entry(file, "paths"), str(index))
            if not isinstance(paths, tuple) or len(cast(tuple[str, ...], paths)) != len(labels):
                raise Damaged(f"/paths/{index} has no path for each of {len(labels)} images")
            return cast(tuple[str, ...], paths), labels


class CachedImages(StoredRows):
    """Images [size, size, 3] uint8 of a domain in an image cache, with their names."""

    def __init__(self, path: Path, key: str, domain: int, names: tuple[str, ...]) -> None:
        super().__init__(path, KIND, key, domain, "images")
        self.names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedImages, (self._path, self._key, self._domain, self.names)


def open_images(path: Path) -> ImageCache:
    """Open a file of ``fishr cache images``; its images are read on demand.

    Raises:
        InputError: The file is absent, of another program or kind, newer, incomplete or damaged, or a label is no
            class.
    """
    with opened(path, KIND) as file:
        (provenance, key), sections = read_origin(file), read_sections(file)
        size, classes = whole_number(provenance, "size", "provenance"), provenance.get("classes")
        if not isinstance(classes, tuple):
            raise Damaged("provenance/classes is no list of names")
        shapes = {"images": (size, size, 3), "labels": (), "ids": ()}
        check_columns(path, file, sections, shapes, len(classes))
        return ImageCache(path, key, provenance, classes, size, str(provenance.get("resize")), sections)


def write_images(
    path: Path,
    provenance: Mapping[str, Any],
    sections: Sequence[Section],
    paths: Sequence[tuple[str, ...]],
    labels: Sequence[Array],
    compute: Callable[[int, int, int], Array],
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> bool:
    """Write an image cache in parts and return True; return False if it exists already. A killed run resumes."""
    # `compute` maps (domain, start, stop) to images [n, size, size, 3] uint8.

    def rows(domain: int, start: int, stop: int) -> dict[str, Array]:
        kept = labels[domain][start:stop].astype(np.int64, copy=False)
        return {"images": compute(domain, start, stop), "labels": kept, "ids": np.arange(start, stop)}

    size, more = int(provenance["size"]), {"paths": {str(index): names for index, names in enumerate(paths)}}
    part = rows_a_part({"images": np.empty((1, size, size, 3), np.uint8)})
    return write_domains(path, KIND, provenance, {}, sections, rows, COLUMNS, part, progress, more=more)
