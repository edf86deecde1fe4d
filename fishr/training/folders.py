"""Run folders: made in one piece, never overwritten, used by one process at a time."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fishr.errors import InputError, RunFailed
from fishr.files import partial_folder, present, put_folder, write_atomically
from fishr.locks import LOCK, beside, is_locked, locked, open_own
from fishr.training.keeping import Keeping

CONFIGURATION = "config.toml"
_BUSY = "another process is training in it; wait for it to end, or choose another name"


def check_absent(folder: Path) -> None:
    """Refuse a folder that exists.

    Args:
        folder: where a new run is wanted.

    Raises:
        InputError: something is there.

    Example:
        >>> check_absent(Path("no-such-run"))
    """
    if present(folder):
        raise InputError(f"{folder}: exists already; resume it with --resume {folder}, or choose another name")


@contextmanager
def new_folder(
    folder: Path,
    experiment_text: str,
    keeping: Keeping = Keeping(),  # noqa: B008 (immutable)
) -> Generator[None]:
    """A new run folder that holds its configuration, locked while the context lasts.

    It is prepared beside its place and renamed, so a run folder never lacks its configuration.

    Args:
        folder: where; its parents are made.
        experiment_text: the configuration, as TOML.
        keeping: what the run keeps on its way, kept in the folder too.

    Raises:
        InputError: the folder exists, or cannot be made there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     with new_folder(Path(parent) / "run", "seed = 0"):
        ...         print((Path(parent) / "run" / "config.toml").read_text())
        seed = 0
    """
    check_absent(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(beside(folder), folder, _BUSY), partial_folder(folder) as partial:
            check_absent(folder)
            keeping.save(partial)
            write_atomically(partial / CONFIGURATION, experiment_text.encode())
            put_folder(partial, folder)
    except (OSError, RunFailed) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{folder}: could not be made ({reason}); choose another place") from error
    with locked(folder / LOCK, folder, _BUSY):
        yield


@contextmanager
def existing_folder(folder: Path, experiment_text: str) -> Generator[None]:
    """A run folder that was made before, locked while the context lasts.

    Args:
        folder: where it is.
        experiment_text: the configuration it is to have.

    Raises:
        InputError: no run is there, it has another configuration, or another process is at work in it.

    Example:
        >>> with existing_folder(Path("run"), "seed = 0"):
        ...     pass
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: run: no run is there to resume (it has no config.toml); start it without --resume
    """
    path = folder / CONFIGURATION
    if not path.is_file():
        raise InputError(f"{folder}: no run is there to resume (it has no {CONFIGURATION}); start it without --resume")
    with locked(folder / LOCK, folder, _BUSY):
        if path.read_bytes() != experiment_text.encode():
            raise InputError(
                f"{folder}: its {CONFIGURATION} differs from the configuration given; "
                "resume with its own, or choose another name"
            )
        yield


def is_in_use(folder: Path) -> bool:
    """Return whether a process works in a run folder.

    Example:
        >>> is_in_use(Path("no-such-run"))
        False
    """
    return is_locked(folder / LOCK)


class LineFile:
    """A file of lines that grows at its end; what is written survives the death of the process.

    Args:
        path: where.
        position: bytes to keep of what is there already; the rest is cut off.

    Raises:
        InputError: the file is shorter than ``position``.
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, LineFile(Path(folder) / "metrics.jsonl") as lines:
        ...     lines.append("{}")
        ...     lines.position
        3
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        """Open the file and cut it to ``position``."""
        self._path = path
        with self._reported():
            size = path.stat().st_size if path.exists() else 0
        if size < position:
            raise InputError(
                f"{path}: has {size} bytes, expected at least {position}, as its checkpoint says; "
                "it was damaged, so start the run anew under another name"
            )
        with self._reported():
            self._file = os.fdopen(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab", buffering=0)
            self._file.truncate(position)
        self.position = position

    def __enter__(self) -> "LineFile":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def append(self, line: str) -> None:
        """Write a line and its end."""
        rest = line.encode() + b"\n"
        with self._reported():
            while rest:
                written = self._file.write(rest)
                self.position += written
                rest = rest[written:]

    def sync(self) -> None:
        """Make what was written survive a power cut."""
        with self._reported():
            os.fsync(self._file.fileno())

    @contextmanager
    def _reported(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(
                f"{self._path}: could not be written ({error.strerror}); the last checkpoint is kept"
            ) from error
