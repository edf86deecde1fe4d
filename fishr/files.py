"""Durable files and folders: atomic writes, leftovers of killed processes, checksums.

An unfinished file or folder is named ``.NAME.<16 hexadecimal digits>.fishr-partial``. Only this module creates such
names, and it removes no others. It follows no links.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fishr.errors import RunFailed, reason
from fishr.locks import is_at, open_own, try_lock

_SUFFIX = "fishr-partial"
_PARTIAL = re.compile(rf"\.(.+)\.[0-9a-f]{{16}}\.{_SUFFIX}", re.DOTALL)


def present(path: Path) -> bool:
    """Return whether a path exists; a broken or circular link counts."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the previous file or the whole new one, never a part."""
    fill_atomically(path, lambda file: file.write(content))


def fill_atomically(
    path: Path, fill: Callable[[BinaryIO], object], check: Callable[[Path], object] = lambda partial: None
) -> None:
    """Write a file by a callback; ``check`` gets the path of the file before its move. OSError becomes RunFailed."""
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
        raise RunFailed(f"{path}: could not be written ({reason(error)}); {kept}") from error


def copy_atomically(source: Path, path: Path) -> None:
    """Copy a file that is only ever replaced, never written into, as a hard link where possible."""
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
    """Yield an empty folder for ``put_folder`` and remove it at the end; the caller holds ``beside(path)``."""
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
    """Give a complete folder its name. The caller holds ``beside(path)``, where nothing is present."""
    partial.rename(path)
    sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove the partial files of killed writers of ``path``; those of living writers stay."""
    for leftover in _leftovers(path):
        # A leftover that cannot be opened, locked or removed stays.
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
    """Return the final name of a partial file or folder; None if the name is not a partial one."""
    found = _PARTIAL.fullmatch(name)
    return found[1] if found else None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    if os.name == "nt":  # Windows does not open folders.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, on one line without ``indent``; infinity and NaN, which JSON lacks, become null."""
    try:
        return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False)
    except ValueError:
        finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
        return json.dumps(finite, sort_keys=True, indent=indent)


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file in hexadecimal."""
    with path.open("rb") as file:
        # Hardened systems allow MD5 only where nothing secret depends on it.
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.{_SUFFIX}")


def _leftovers(path: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from [found for found in path.parent.iterdir() if whole_name(found.name) == path.name]


def _begin(path: Path) -> tuple[Path, int]:
    """Create a partial file, locked while its writer is alive."""
    while True:
        partial = _partial(path)
        handle = open_own(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            # Windows neither lets others read a locked file nor remove an open one.
            if os.name == "nt" or (try_lock(handle) and is_at(handle, partial)):
                return partial, handle
        except OSError:  # Without locks in the file system, leftovers stay.
            return partial, handle
        os.close(handle)
