"""Run folders: made in one piece, never overwritten, used by one process at a time."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import BinaryIO

from fishr.errors import InputError, RunFailed
from fishr.files import sync_folder
from fishr.training.keeping import Keeping

CONFIGURATION = "config.toml"


def check_absent(folder: Path) -> None:
    """Refuse a folder that exists.

    Args:
        folder: where a new run is wanted.

    Raises:
        InputError: something is there.

    Example:
        >>> check_absent(Path("no-such-run"))
    """
    if folder.exists() or folder.is_symlink():
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
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f".{escape(folder.name)}.tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        keeping.save(temporary)
        file = (temporary / CONFIGURATION).open("wb")
    except (OSError, RunFailed) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{folder}: could not be made ({reason}); choose another place") from error
    with file:
        try:
            file.write(experiment_text.encode())
            file.flush()
            os.fsync(file.fileno())
            _lock(file, folder)
            temporary.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            check_absent(folder)
            raise InputError(f"{folder}: could not be made ({error.strerror}); choose another place") from error
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
    try:
        # Network file systems give an exclusive lock only to those who may write.
        file = path.open("rb+")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); ask for the right to, or copy the run"
        ) from error
    with file:
        _lock(file, folder)
        if file.read() != experiment_text.encode():
            raise InputError(
                f"{folder}: its {CONFIGURATION} differs from the configuration given; "
                "resume with its own, or choose another name"
            )
        yield


def _lock(file: BinaryIO, folder: Path) -> None:
    # The kernel drops this lock when the process ends, however it ends.
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{folder}: another process is training in it; wait for it to end, or choose another name"
        ) from None


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
            self._file = path.open("ab", buffering=0)
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
