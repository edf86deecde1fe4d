"""Paths in options and configurations: their syntax, where they start, and errors of the file system."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from fishr.errors import InputError, one_line, reason

DATA = Path("data")

_REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "ask for access, or choose another place"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "check the path"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "make room, or choose another place"),
    errno.EROFS: "choose a place that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "give a file",
    errno.ELOOP: "check the symbolic links",
}
# The device failed or is full; the request itself is valid.
_DEVICE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def typed_path(text: str) -> Path:
    """Return the path that a text names, with ``~`` expanded."""
    if not text:
        raise InputError("got an empty text, expected a path")
    if "\0" in text:
        raise InputError(f"got {one_line(text)}, expected a path without NUL characters")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise InputError(f"got {one_line(text)}, expected a path in characters that file names can have") from None
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser fails for users that do not exist


def in_data_folder(path: str, data_dir: Path | None) -> Path:
    """Return a path of a configuration: a relative one starts at the data folder, by default ``data``."""
    folder, written = DATA if data_dir is None else data_dir, typed_path(path)
    place = folder / written
    if place != written and not place.exists() and written.exists():
        raise InputError(
            f"{place}: nothing is there, but {written} is in the working directory; a path in a configuration starts "
            "at the data folder: move it there, give --data-dir ., or write the whole path"
        )
    return place


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be created, before any work is done for it."""
    # A name that is too long; from Python 3.14 on such a path only seems to be missing.
    with suppress(FileNotFoundError, NotADirectoryError):
        path.lstat()
    above = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "may not be written" if above.is_dir() else "is not a folder"
        raise InputError(f"{path}: cannot be created, since {above} {why}; choose another place")


def check_file_writable(path: Path) -> None:
    """Refuse a file that cannot be created or whose folder does not exist, before any work is done for it."""
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; make it, or choose another place")
    check_writable(path)


def access_message(error: OSError) -> str:
    """Return what the operating system refused, on one line: path, reason and remedy."""
    names = [one_line(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    text = f"{' and '.join(names)}: {reason(error)}" if names else reason(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{text}; {remedy}" if remedy else text


def is_device_failure(error: OSError) -> bool:
    """Return whether the disk is full or broken, rather than the path unusable."""
    return error.errno in _DEVICE
