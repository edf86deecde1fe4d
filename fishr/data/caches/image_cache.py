"""Image caches: the images of each environment, decoded and resized once."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from attrs import frozen

from fishr.data.caches.domain_rows import (
    Content,
    Section,
    check_columns,
    read_columns,
    read_origin,
    read_sections,
    whole_number,
    write_domains,
)
from fishr.data.caches.encoding import Array, Damaged, entry, read_element
from fishr.data.caches.feature_cache import rows_a_part
from fishr.data.caches.hdf5 import UNREADABLE, opened
from fishr.errors import InputError

KIND = "fishr-images"
COLUMNS = ("images", "labels", "ids")


@frozen(eq=False)
class CachedRows:
    """What a file knows of a domain's images, apart from their pixels.

    Args:
        paths: [n], of the files that they were made of, as these were listed.
        labels: [n] int64, places in the file's classes.

    Example:
        >>> CachedRows(("photo/dog/1.jpg",), np.array([0])).paths
        ('photo/dog/1.jpg',)
    """

    paths: tuple[str, ...]
    labels: Array


@frozen(eq=False)
class ImageCache:
    """A file of images, read on demand; it is open only while something is read.

    Args:
        path: of the file.
        key: hash of everything that decides its rows, the content of the image files included.
        provenance: what that is.
        classes: names of the classes, sorted.
        size: side of the images, pixels.
        sections: the domains.

    Example:
        >>> ImageCache(Path("nowhere.h5"), "0123", {}, ("cat", "dog"), 224, (Section("photo", "training", 3),)).size
        224
    """

    path: Path
    key: str
    provenance: dict[str, Any]
    classes: tuple[str, ...]
    size: int
    sections: tuple[Section, ...]

    def domain(self, index: int) -> CachedRows:
        """Paths and labels of a domain.

        Args:
            index: of the domain in ``sections``.

        Raises:
            InputError: no such domain, or the file is damaged or another one by now.
        """
        labels = read_columns(self.path, KIND, self.key, index, ("labels",))["labels"]
        with opened(self.path, KIND) as file:
            paths = read_element(entry(file, "paths"), str(index))
            if not isinstance(paths, tuple) or len(cast(tuple[str, ...], paths)) != len(labels):
                raise Damaged(f"/paths/{index} has no path for each of {len(labels)} images")
            return CachedRows(cast(tuple[str, ...], paths), labels)


class ImageRows:
    """The pixels of an image cache, read image by image in any thread.

    Once read, the file stays open in its process; what is sent to another process, or is there after a fork, opens it
    anew.

    Args:
        path: of the file.
        key: that it must have.

    Example:
        >>> ImageRows(Path("nowhere.h5"), "0123").read(0, 0)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """

    def __init__(self, path: Path, key: str) -> None:
        """Nothing is opened yet."""
        self._path, self._key = path, key
        self._open: _Open | None = None

    def __getstate__(self) -> tuple[Path, str]:
        """Without the open file, which belongs to this process."""
        return self._path, self._key

    def __setstate__(self, state: tuple[Path, str]) -> None:
        """As new."""
        self.__init__(*state)

    def read(self, domain: int, row: int) -> Array:
        """One image, [size, size, 3] uint8.

        Args:
            domain: which one, from 0.
            row: which of its images.

        Raises:
            InputError: absent, damaged or another file than the key's.
        """
        # Held in a local name, as another thread may forget the file meanwhile.
        held = self._open
        if held is None or held.process != os.getpid():
            held = self._open = self._opened()
        try:
            return held.images[domain][row]
        except UNREADABLE:
            # Read in the slow way, which says what is wrong with the file.
            self._open = None
            return read_columns(self._path, KIND, self._key, domain, ("images",), row, row + 1)["images"][0]

    def _opened(self) -> "_Open":
        with ExitStack() as stack:
            file = stack.enter_context(opened(self._path, KIND))
            if read_element(file, "key") != self._key:
                raise InputError(f"{self._path}: is another file than was opened (its key has changed); open it again")
            domains = entry(file, "domains")
            images = tuple(entry(entry(domains, str(index)), "images") for index in range(len(domains)))
            return _Open(os.getpid(), stack.pop_all(), images)


@frozen(eq=False)
class _Open:
    """A file that stays open until this is forgotten."""

    process: int
    stack: ExitStack
    images: tuple[h5py.Dataset, ...]


def open_images(path: Path) -> ImageCache:
    """A file that ``fishr cache images`` wrote, its images still unread.

    Args:
        path: of the file.

    Raises:
        InputError: absent, another program's, of another kind, newer, incomplete or damaged, or with labels that are
            no classes.

    Example:
        >>> open_images(Path("nowhere.h5"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    with opened(path, KIND) as file:
        provenance, key = read_origin(file)
        sections, size = read_sections(file), whole_number(provenance, "size", "provenance")
        classes = provenance.get("classes")
        if not isinstance(classes, tuple):
            raise Damaged("provenance/classes is no list of names")
        shapes = {"images": (size, size, 3), "labels": (), "ids": ()}
        check_columns(path, file, sections, shapes, len(classes))
        return ImageCache(path, key, provenance, classes, size, sections)


def write_images(
    path: Path,
    provenance: Mapping[str, Any],
    sections: Sequence[Section],
    paths: Sequence[tuple[str, ...]],
    labels: Sequence[Array],
    compute: Callable[[int, int, int], Array],
    progress: Callable[[int], object] = lambda rows: None,
) -> bool:
    """Write an image cache, part by part; go on where a killed writer stopped.

    Args:
        path: where; its folder exists.
        provenance: everything that decides the rows, with the "size" of the images and the names of "classes".
        sections: the domains.
        paths: of each domain's image files.
        labels: of each domain's images, places in the classes.
        compute: (domain, start, stop) to the images [n, size, size, 3] uint8 of these rows.
        progress: is told the rows of each part that is there.

    Returns:
        Whether it was written; False if it was there already, made of the same.

    Raises:
        InputError: a file made of something else is there, the first field that differs is named; or another process
            is writing it.
        RunFailed: it could not be written; the parts are kept.

    Example:
        >>> import tempfile
        >>> provenance, sections = {"size": 2, "classes": ("cat", "dog")}, [Section("photo", "training", 1)]
        >>> compute = lambda domain, start, stop: np.full((stop - start, 2, 2, 3), 7, np.uint8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.h5")
        ...     written = write_images(path, provenance, sections, [("1.jpg",)], [np.array([1])], compute)
        ...     ImageRows(path, open_images(path).key).read(0, 0).tolist(), open_images(path).domain(0).paths
        ([[[7, 7, 7], [7, 7, 7]], [[7, 7, 7], [7, 7, 7]]], ('1.jpg',))
    """

    def rows(domain: int, start: int, stop: int) -> dict[str, Array]:
        kept = labels[domain][start:stop].astype(np.int64, copy=False)
        return {"images": compute(domain, start, stop), "labels": kept, "ids": np.arange(start, stop)}

    more = {"paths": {str(index): names for index, names in enumerate(paths)}}
    content = Content(KIND, provenance, {}, sections, rows, COLUMNS, more=more)
    size = int(provenance["size"])
    return write_domains(path, content, rows_a_part({"images": np.empty((1, size, size, 3), np.uint8)}), progress)
