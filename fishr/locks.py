"""File locks that the kernel releases when their process ends, and files opened without following links."""

import errno
import os
import stat
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from fishr.errors import InputError, reason

# The lock file inside a folder that a process works in.
LOCK = ".fishr-lock"
_PATIENCE, _PAUSE = 1.0, 0.05  # seconds


def beside(path: Path) -> Path:
    """Return the path of the lock file beside a file or folder."""
    return path.with_name(f".{path.name}{LOCK}")


@contextmanager
def locked(lock: Path, path: Path, busy: str) -> Generator[None]:
    """Hold a lock file for ``path``, removed afterwards; ``busy`` is the error if another process holds it."""
    # Another process's is_locked holds the lock for a moment.
    deadline = time.monotonic() + _PATIENCE
    try:
        while (handle := _taken(lock)) is None:
            if time.monotonic() > deadline:
                raise InputError(f"{path}: {busy}")
            time.sleep(_PAUSE)
    except OSError as error:
        raise InputError(f"{path}: cannot be written there ({reason(error)}); choose another place") from error
    try:
        yield
    finally:
        # A lock file is empty; a file with content is somebody's. Windows does not remove an open file.
        with suppress(OSError):
            if os.name != "nt" and os.fstat(handle).st_size == 0 and is_at(handle, lock):
                lock.unlink()
        os.close(handle)


def is_locked(lock: Path) -> bool:
    """Return whether a process holds a lock file; False if it is absent, or this user may not open it."""
    try:
        handle = open_own(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        return not try_lock(handle)
    except OSError:  # A file system without locks.
        return False
    finally:
        os.close(handle)


def open_own(path: Path, flags: int) -> int:
    """Open a file that only this program writes: a regular file, never the target of a link."""
    # A pipe without a reader would block.
    extra = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        handle = os.open(path, flags | extra, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(error.errno, f"{path.name} is a link, expected a regular file", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file", str(path))
    return handle


def try_lock(handle: int) -> bool:
    """Lock an open file; return False if another process holds the lock."""
    # Here, because filelock warns on import where the system has no locks.
    from filelock import lock_descriptor

    return lock_descriptor(handle, blocking=False)


def is_at(handle: int, path: Path) -> bool:
    """Return whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _taken(lock: Path) -> int | None:
    """Return the lock file, open and locked, or None if another process holds it."""
    with ExitStack() as stack:
        handle = open_own(lock, os.O_RDWR | os.O_CREAT)
        stack.callback(os.close, handle)
        # Its last holder may have removed it since it was opened.
        if try_lock(handle) and is_at(handle, lock):
            stack.pop_all()
            return handle
    return None
