"""Locks that the kernel drops when their process ends, however it ends."""

import errno
import fcntl
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fishr.errors import InputError

_PATIENCE, _PAUSE = 1.0, 0.05  # seconds


@contextmanager
def locked(path: Path, refusal: str, shared: bool = False) -> Generator[None]:
    """Hold the lock of a file while the context lasts.

    Args:
        path: of the file, which is made where it is absent; its folder exists.
        refusal: what to say when another process holds it.
        shared: whether others may hold it, shared, at the same time.

    Raises:
        InputError: another process holds it, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "lock"), "busy"):
        ...     with locked(Path(folder, "lock"), "somebody has it"):
        ...         pass
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: somebody has it
    """
    try:
        file = path.open("ab")
    except OSError as error:
        raise InputError(f"{path}: could not be made ({error.strerror}); choose another place") from error
    with file:
        # Whoever only asks whether it is held has it for a moment.
        deadline = time.monotonic() + _PATIENCE
        while not _taken(file.fileno(), shared):
            if time.monotonic() > deadline:
                raise InputError(refusal)
            time.sleep(_PAUSE)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file.

    Args:
        path: of the file; one that is absent is not held.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder, "lock"), "busy", shared=True):
        ...     is_locked(Path(folder, "lock")), is_locked(Path(folder, "absent"))
        (True, False)
    """
    try:
        with path.open("rb+") as file:
            return not _taken(file.fileno(), shared=False)
    except FileNotFoundError:
        return False
    except PermissionError:
        # Only its owner can ask.
        return False


def _taken(descriptor: int, shared: bool) -> bool:
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
