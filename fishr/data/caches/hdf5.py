"""HDF5 files that are whole or absent, written by one process at a time and checked when opened."""

import errno
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import h5py
from attrs import frozen

import fishr
from fishr.data.caches.encoding import (
    EDITION,
    TYPE,
    VERSION,
    Damaged,
    Tree,
    attribute,
    read_tree,
    set_text,
    stamp,
    structure_digest,
    write_tree,
)
from fishr.errors import InputError, reason
from fishr.files import fill_atomically, present
from fishr.locks import beside, locked

KINDS = (
    *("fishr-features", "fishr-activations", "fishr-gradients", "fishr-statistics", "fishr-analysis", "fishr-surface"),
    "fishr-images",
)
_COMPLETE, _DIGEST, _LIBRARY = "complete", "digest", "library"
# Raised by h5py on damaged bytes.
UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError, OverflowError)


@frozen
class Header:
    """Kind of a file, such as "fishr-features", version of its layout, and version of the fishr that wrote it."""

    kind: str
    version: int
    library: str


class _Disk(FileIO):
    """A file that reports a full disk at the end: HDF5 cannot stop half-way, and crashes if it is made to."""

    _failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self._failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0

    def check(self) -> None:
        """Raise the OSError of the first write that failed."""
        if self._failure is not None:
            raise self._failure


def sole_writer(path: Path) -> AbstractContextManager[None]:
    """Keep other writers away from a path during the context."""
    return locked(beside(path), path, "another process is writing it; wait for it to end, or choose another name")


def write_whole(path: Path, kind: str, fill: Callable[[h5py.File], None]) -> None:
    """Write a file beside its place, verify it, and move it there; the caller holds the lock of the path or folder."""

    def write(whole: BinaryIO) -> None:
        try:
            with _Disk(whole.fileno(), "r+b", closefd=False) as disk:
                try:
                    # This layout has checksums in its own structures as well.
                    with h5py.File(disk, "w", libver=("v110", "v110"), track_order=True) as file:
                        stamp(file, kind)
                        set_text(file, _LIBRARY, fishr.__version__)
                        fill(file)
                        set_text(file, _DIGEST, _digest(file))
                        file.attrs[_COMPLETE] = True
                finally:
                    # A full disk is the reason of any later error of HDF5.
                    disk.check()
        except InputError:  # A value without an encoding.
            raise
        except (OSError, RuntimeError, ValueError) as error:
            raise OSError(reason(error)) from error

    fill_atomically(path, write, lambda partial: _verify(partial, kind))


@contextmanager
def opened(path: Path, kind: str | None) -> Generator[h5py.File]:
    """Open a file of ours for reading, of this kind or any; errors, also of later reads, are one line."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a file that fishr wrote")
    try:
        # A file under its final name never changes, so readers need no lock, which some file systems lack.
        with h5py.File(path, "r", locking=False) as file:
            _check(file, path, kind)
            yield file
    except Damaged as error:
        raise InputError(f"{path}: damaged ({error}); make it again") from error
    except InputError:
        raise
    except PermissionError as error:
        # HDF5 replaces the system's text.
        raise InputError(f"{path}: cannot be read ({os.strerror(errno.EACCES)}); ask for access, or copy it") from error
    except UNREADABLE as error:
        if not h5py.is_hdf5(path):
            raise InputError(f"{path}: not an HDF5 file; give the path of a file that fishr wrote") from error
        if isinstance(error, BlockingIOError) or "already open for" in str(error):
            raise InputError(
                f"{path}: in use by another process, which has opened it for writing; wait until it is closed, or "
                f"after a crash of that process remove its mark with h5clear --status {path}"
            ) from error
        if "unable to lock file" in str(error):
            raise InputError(f"{path}: cannot be locked ({reason(error)}); unset HDF5_USE_FILE_LOCKING") from error
        raise InputError(f"{path}: cut short or damaged ({reason(error)}); make it again") from error


def header_of(file: h5py.File) -> Header:
    match attribute(file, TYPE), attribute(file, EDITION), attribute(file, _LIBRARY):
        case str() as kind, int() as version, str() as library:
            return Header(kind, version, library)
        case _:
            raise Damaged("it does not say what it is")


def _check(file: h5py.File, path: Path, kind: str | None) -> None:
    if attribute(file, TYPE) not in KINDS:
        raise InputError(f"{path}: an HDF5 file of another program; give the path of a file that fishr wrote")
    header = header_of(file)
    if kind is not None and header.kind != kind:
        raise InputError(f"{path}: got a file of kind {header.kind}, expected {kind}; give the path of such a file")
    if header.version != VERSION:
        raise InputError(
            f"{path}: got version {header.version} of {header.kind}, expected {VERSION}; "
            f"read it with the fishr that wrote it ({header.library}), or make it again"
        )
    if attribute(file, _COMPLETE) is not True:
        raise Damaged("its writing was never completed")
    if attribute(file, _DIGEST) != _digest(file):
        raise Damaged("its structure is not what was written")


def _digest(file: h5py.File) -> str:
    header = header_of(file)
    return f"{structure_digest(file)}-{header.kind}-{header.version}-{header.library}"


def _verify(path: Path, kind: str) -> None:
    try:
        with opened(path, kind):
            pass
    except InputError as error:
        raise OSError(f"what was written cannot be read: {error}") from error


def save_tree(path: Path, kind: str, tree: Mapping[str, Any], *, replace: bool = False) -> None:
    """Write a tree to a file that is whole or absent; refuse an existing one unless ``replace``."""
    with sole_writer(path):
        if not replace and present(path):
            raise InputError(f"{path}: exists already; choose another name, or remove it")
        write_whole(path, kind, lambda file: write_tree(file, tree))


def load_tree(path: Path, kind: str) -> Tree:
    """Return what ``save_tree`` wrote, every byte checked.

    Raises:
        InputError: The file is absent, of another program or kind, newer, incomplete or damaged.
    """
    with opened(path, kind) as file:
        return read_tree(file)


def read_header(path: Path) -> Header:
    """Return kind, version and writer of a file of any kind."""
    with opened(path, None) as file:
        return header_of(file)
