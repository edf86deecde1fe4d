"""Durable files and folders: atomic writes, leftovers of killed processes, checksums.

A file or folder that is being written is called ``.NAME.<16 hexadecimal digits>.fishr-partial`` until it is whole. Only
this module makes such names, and only exactly such names are ever removed. No link is followed.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fishr.errors import RunFailed
from fishr.locks import is_at, open_own, try_lock

_SUFFIX = "fishr-partial"
_PARTIAL = re.compile(rf"\.(.+)\.[0-9a-f]{{16}}\.{_SUFFIX}", re.DOTALL)


def present(path: Path) -> bool:
    """Return whether something has this name; a link that leads nowhere or in a circle counts.

    Example:
        >>> present(Path("no-such-file"))
        False
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the previous file or the whole new one, never a part.

    Args:
        path: of the file; its folder exists.
        content: the file's bytes.

    Raises:
        RunFailed: the bytes could not be written; the previous file, if any, is unchanged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "result.json", b"{}")
        ...     print((Path(folder) / "result.json").read_text(), len(list(Path(folder).iterdir())))
        {} 1
    """
    fill_atomically(path, lambda file: file.write(content))


def fill_atomically(
    path: Path, fill: Callable[[BinaryIO], object], check: Callable[[Path], object] = lambda partial: None
) -> None:
    """Write a file by a callback, with the guarantees of ``write_atomically``.

    Args:
        path: of the file; its folder exists.
        fill: writes the content into the open file.
        check: called with the path of the complete file before it is moved to ``path``; raises if it is not right.

    Raises:
        RunFailed: an OSError occurred; the previous file, if any, is unchanged. Other errors pass unchanged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fill_atomically(Path(folder) / "lines.txt", lambda file: file.writelines([b"a", b"b"]))
        ...     print((Path(folder) / "lines.txt").read_text())
        ab
    """
    partial = None
    try:
        remove_leftovers(path)
        partial, handle = _begin(path)
        with os.fdopen(handle, "w+b") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
            check(partial)
            if os.name == "nt":  # Windows does not rename an open file.
                file.close()
            partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        if partial is not None:
            with suppress(OSError):
                partial.unlink()
        if not isinstance(error, OSError):
            raise
        kept = "the previous file is kept" if os.path.lexists(path) else "nothing was left behind"
        raise RunFailed(f"{path}: could not be written ({error.strerror or error}); {kept}") from error


def copy_atomically(source: Path, path: Path) -> None:
    """Copy a file that is only ever replaced, never written into: a hard link where the file system has links.

    Args:
        source: the file.
        path: of the copy; its folder exists.

    Raises:
        OSError: the copy could not be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder, "a"), b"content")
        ...     copy_atomically(Path(folder, "a"), Path(folder, "b"))
        ...     Path(folder, "b").read_bytes()
        b'content'
    """
    remove_leftovers(path)
    partial = _partial(path)
    try:
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        # Renaming a link onto another link of the same file does nothing and leaves both.
        with suppress(OSError):
            partial.unlink()


@contextmanager
def partial_folder(path: Path) -> Generator[Path]:
    """An empty folder beside ``path``, which ``put_folder`` moves there; otherwise removed when the context ends.

    Args:
        path: of the folder to make. The caller holds ``beside(path)``.

    Raises:
        OSError: the folder could not be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent, partial_folder(Path(parent, "run")) as partial:
        ...     put_folder(partial, Path(parent, "run"))
        ...     [path.name for path in Path(parent).iterdir()]
        ['run']
    """
    for leftover in _leftovers(path):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
    partial = _partial(path)
    try:
        partial.mkdir()
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put_folder(partial: Path, path: Path) -> None:
    """Give a complete folder its name. The caller holds ``beside(path)`` and has seen that nothing is there."""
    partial.rename(path)
    sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove the partial files of killed writers of ``path``; those of living writers stay.

    Example:
        >>> remove_leftovers(Path("no-such-folder") / "checkpoint.pt")
    """
    for leftover in _leftovers(path):
        # Whatever cannot be opened, locked or removed is left alone.
        with suppress(OSError):
            if os.name == "nt":  # Windows does not remove an open file.
                leftover.unlink()
                continue
            handle = open_own(leftover, os.O_RDWR)
            try:
                if try_lock(handle):
                    leftover.unlink()
            finally:
                os.close(handle)


def whole_name(name: str) -> str | None:
    """Return the name that a partial file or folder was to have; None if the name is no partial one.

    Example:
        >>> whole_name(".a.h5.0123456789abcdef.fishr-partial"), whole_name("a.h5.tmp-1")
        ('a.h5', None)
    """
    found = _PARTIAL.fullmatch(name)
    return found[1] if found else None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut.

    Example:
        >>> sync_folder(Path("."))
    """
    if os.name == "nt":  # Windows does not open folders.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file, in hexadecimal.

    Args:
        path: of the file.
        algorithm: "sha256" or "md5".

    Raises:
        OSError: the file cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     digest_of(Path(file.name))[:8]
        'e3b0c442'
    """
    with path.open("rb") as file:
        # Hardened systems allow MD5 only where nothing secret depends on it.
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{_SUFFIX}")


def _leftovers(path: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from [found for found in path.parent.iterdir() if whole_name(found.name) == path.name]


def _begin(path: Path) -> tuple[Path, int]:
    """Create a partial file whose lock shows that its writer is alive."""
    while True:
        partial = _partial(path)
        handle = open_own(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            # Windows neither lets others read a locked file nor remove an open one.
            if os.name == "nt" or (try_lock(handle) and is_at(handle, partial)):
                return partial, handle
        except OSError:  # A file system without locks: there, leftovers stay.
            return partial, handle
        os.close(handle)
