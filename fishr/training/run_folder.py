"""Run folders: the names of their files, their locks, and files of lines that survive a kill."""

import json
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fishr.errors import InputError, RunFailed, reason
from fishr.files import partial_folder, present, put_folder, write_atomically
from fishr.locks import LOCK, beside, is_locked, locked, open_own

CONFIGURATION, METRICS, CHECKPOINT, RESULT = "config.toml", "metrics.jsonl", "checkpoint.pt", "result.json"
JOB = "job.toml"  # in a folder that is a job of a sweep
AVERAGE = "average.json"  # in a folder of the mean weights of runs
JOINED = "joined.json"  # in a folder of a run's weights and those that its inputs were computed with
_BUSY = "another process is training in it; wait for it to end, or choose another name"


def check_absent(folder: Path) -> None:
    """Refuse a folder that exists."""
    if present(folder):
        resume = f"resume it with --resume {folder}, or " if (folder / CONFIGURATION).is_file() else ""
        raise InputError(f"{folder}: exists already; {resume}choose another name")


@contextmanager
def new_folder(folder: Path, experiment_text: str, fill: Callable[[Path], object]) -> Generator[None]:
    """Make a run folder with its configuration and lock it; it is renamed into place when it is filled."""
    check_absent(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(beside(folder), folder, _BUSY), partial_folder(folder) as partial:
            check_absent(folder)
            fill(partial)
            write_atomically(partial / CONFIGURATION, experiment_text.encode())
            put_folder(partial, folder)
    except (OSError, RunFailed) as error:
        raise InputError(f"{folder}: could not be made ({reason(error)}); choose another place") from error
    with locked(folder / LOCK, folder, _BUSY):
        yield


@contextmanager
def existing_folder(folder: Path, experiment_text: str) -> Generator[None]:
    """Lock a run folder that has this configuration."""
    path = folder / CONFIGURATION
    if not path.is_file():
        raise InputError(f"{folder}: no run is there to resume (it has no {CONFIGURATION}); start it without --resume")
    for name, weights in ((AVERAGE, "the mean weights of several runs"), (JOINED, "joined weights")):
        if (folder / name).is_file():
            raise InputError(f"{folder}: has {weights}, which cannot train on; resume a run that they are of")
    with locked(folder / LOCK, folder, _BUSY):
        if not same_configuration(path.read_bytes().decode(errors="replace"), experiment_text):
            raise InputError(
                f"{folder}: its {CONFIGURATION} differs from the configuration given; "
                "resume with its own, or choose another name"
            )
        yield


def same_configuration(one: str, other: str) -> bool:
    """Return whether two TOML texts are equal up to keys that were renamed."""
    one, other = (text.replace("\npieces = ", "\nmicro_batches = ") for text in (one, other))
    return one == other


def is_in_use(folder: Path) -> bool:
    """Return whether a process works in a run folder."""
    return is_locked(folder / LOCK)


def checkpoint_of(folder: Path) -> Path:
    """Return the path of a run's checkpoint; where it is missing, the error says whether a sweep dropped it."""
    path = folder / CHECKPOINT
    if present(path):
        return path
    try:
        result: dict[str, Any] = json.loads((folder / RESULT).read_bytes())
        failed = f", and its run failed ({result['message']})" if result["status"] == "failed" else ""
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder}: no {CHECKPOINT} yet; resume the run until it has made one") from None
    if not (folder / JOB).is_file():
        ended = failed or ", though its run has ended"
        raise InputError(
            f"{folder}: no {CHECKPOINT}{ended}; {'' if failed else 'put it back, or '}train again elsewhere"
        )
    raise InputError(
        f'{folder}: its weights were not kept{failed}; set keep = "weights" in the plan of its sweep, '
        "remove this folder and run the sweep again"
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a run's metrics without a last line that is not finished."""
    path = folder / METRICS
    try:
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not what fishr wrote; put back the file, or train again") from error


class LineFile:
    """A file of lines that grows at its end, cut to ``position`` bytes when it is opened."""

    def __init__(self, path: Path, position: int = 0) -> None:
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
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, line: str) -> None:
        """Write a line, which survives the death of the process."""
        rest = line.encode() + b"\n"
        with self._reported():
            while rest:
                written = self._file.write(rest)
                self.position += written
                rest = rest[written:]

    def sync(self) -> None:
        """Make the lines survive a power cut."""
        with self._reported():
            os.fsync(self._file.fileno())

    @contextmanager
    def _reported(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            raise RunFailed(
                f"{self._path}: could not be written ({reason(error)}); the last checkpoint is kept"
            ) from error
