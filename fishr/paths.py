"""Paths that people give: what may be one, where it starts, and what the file system says about it."""

import errno
import os
from pathlib import Path

from fishr.errors import InputError, one_line

DATA = Path("data")

_REMEDIES = {
    errno.EACCES: "ask for access, or choose another place",
    errno.EPERM: "ask for access, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file",
    errno.ELOOP: "check the symbolic links",
    errno.ENOSPC: "make room, or choose another place",
    errno.EDQUOT: "make room, or choose another place",
}
# The device failed or is full: the request itself was in order.
_DEVICE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def typed_path(text: str) -> Path:
    """Return the path that a text names, with ``~`` expanded.

    Raises:
        InputError: the text is empty, or no file can have that name.

    Example:
        >>> typed_path("runs/erm").name
        'erm'
        >>> typed_path("")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: got an empty text, expected a path
    """
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
    """Return where a path of a configuration leads: a relative one starts at the data folder, ``~`` is expanded.

    Args:
        path: As it is written in a TOML file, a plan or ``--set``.
        data_dir: The data folder; None: ``data``.

    Raises:
        InputError: Nothing is there, but the working directory has it.

    Example:
        >>> in_data_folder("photo.npz", Path("hospital")) == Path("hospital", "photo.npz")
        True
    """
    folder, written = DATA if data_dir is None else data_dir, typed_path(path)
    place = folder / written
    if place != written and not place.exists() and written.exists():
        raise InputError(
            f"{place}: nothing is there, but {written} is in the working directory; a path in a configuration starts "
            "at the data folder: move it there, give --data-dir ., or write the whole path"
        )
    return place


def check_writable(path: Path) -> None:
    """Refuse a place where no file can be made, before work is done for it.

    Raises:
        InputError: The nearest folder above it that exists is none, or may not be written.

    Example:
        >>> check_writable(Path("runs") / "new")
    """
    above = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        reason = "may not be written" if above.is_dir() else "is no folder"
        raise InputError(f"{path}: cannot be made, since {above} {reason}; choose another place")


def access_message(error: OSError) -> str:
    """Return what the operating system refused, on one line: path, reason and remedy.

    Example:
        >>> access_message(PermissionError(errno.EACCES, "Permission denied", "closed/run"))
        'closed/run: Permission denied; ask for access, or choose another place'
    """
    names = [one_line(os.fsdecode(name)) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = one_line(error.strerror or str(error)) or type(error).__name__
    text = f"{' and '.join(names)}: {reason}" if names else reason
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{text}; {remedy}" if remedy else text


def is_device_failure(error: OSError) -> bool:
    """Return whether a disk is full or broken, rather than a path one that cannot be used."""
    return error.errno in _DEVICE
