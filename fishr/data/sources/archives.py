"""Unpack untrusted zip and tar archives: every member is checked before anything is written."""

import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import frozen

from fishr.errors import InputError, reason

CHUNK = 1 << 20
_BAD_BYTES = (zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, *_BAD_BYTES)
_ZIP = (b"PK\3\4", b"PK\5\6")


@frozen
class Member:
    """One file of an archive: its path, unpacked size in bytes, "file", "folder" or what else it is, and a reader."""

    name: str
    size: int
    kind: str
    open: Callable[[], Any]


def is_archive(path: Path) -> bool:
    """Return whether the content of a file is a zip or tar archive."""
    try:
        return _is_zip(path) or tarfile.is_tarfile(path)
    except (*_DAMAGED, OSError):
        return False


def check_members(path: Path) -> int:
    """Refuse paths that leave the folder, repeated paths, links, devices and encryption; return the unpacked bytes."""
    with _readable(path):
        found = tuple(_members(path))
    files, folders = set[PurePosixPath](), set[PurePosixPath]()
    total = 0
    for member in found:
        problem = _problem(member)
        place = _place(member.name)
        if not problem and member.kind == "file":
            if place in files:
                problem = "is repeated"
            files.add(place)
            folders.update(place.parents)
            total += member.size
        if problem:
            raise InputError(f"{path}: {member.name!r} {problem}; nothing was unpacked; get it from its publisher")
    for place in sorted(files & folders):
        raise InputError(f"{path}: {str(place)!r} is both a file and a folder; nothing was unpacked")
    return total


def check_space(archives: Sequence[Path], folder: Path) -> int:
    """Check the members of archives, and that all fit on the disk of a folder; return the unpacked bytes."""
    total = sum(map(check_members, archives))
    free = shutil.disk_usage(folder).free
    if total > free:
        raise InputError(
            f"{', '.join(map(str, archives))}: unpacked {_gib(total)}, but only {_gib(free)} are free in {folder}; "
            "free some space or choose another --data-dir"
        )
    return total


def unpack(path: Path, folder: Path) -> Generator[int]:
    """Unpack the files of a checked archive to an empty folder, and yield the bytes of each file written."""
    with _readable(path):
        for member in _members(path):
            if member.kind == "file":
                target = folder / _place(member.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with member.open() as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                yield member.size


def _members(path: Path) -> Generator[Member]:
    """Yield what an archive lists, each to be opened before the next, and read the archive to its end."""
    if _is_zip(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                yield Member(info.filename, info.file_size, _zip_kind(info), partial(archive.open, info))
        return
    with tarfile.open(path) as archive:
        for info in archive:
            yield Member(info.name, info.size, _tar_kind(info), partial(archive.extractfile, info))
        # A compressed file has its checksum after the end of the archive.
        while archive.fileobj and archive.fileobj.read(CHUNK):
            pass


def _is_zip(path: Path) -> bool:
    # zipfile.is_zipfile also takes a tar file that ends with a zip file.
    with path.open("rb") as file:
        return file.read(4) in _ZIP


def _problem(member: Member) -> str:
    if member.kind not in ("file", "folder"):
        return f"is {member.kind}, expected plain files and folders"
    if "\0" in member.name or re.match(r"[A-Za-z]:", member.name):
        return "is not a portable path"
    place = _place(member.name)
    if place.is_absolute() or ".." in place.parts:
        return "leaves its folder"
    if member.kind == "file" and not place.name:
        return "has no name"
    return ""


def _place(name: str) -> PurePosixPath:
    # Some tools on Windows write backslashes.
    return PurePosixPath(name.replace("\\", "/"))


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 1:
        return "encrypted"
    if mode == stat.S_IFLNK:
        return "a link"
    if info.is_dir():
        return "folder"
    return "file" if mode in (0, stat.S_IFREG) else "a device"


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link"
    if info.isdir():
        return "folder"
    return "file" if info.isfile() else "a device"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


@contextmanager
def _readable(path: Path) -> Generator[None]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a zip or tar archive")
    if not is_archive(path):
        raise InputError(f"{path}: neither a zip nor a tar archive; give one, compressed or not")
    try:
        yield
    except _DAMAGED as error:
        raise InputError(f"{path}: damaged ({reason(error)}); download it again") from None
