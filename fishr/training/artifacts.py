"""Optional artifacts of a run: statistics over time, and snapshots of the weights."""

import json
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen
from attrs.validators import optional

from fishr.checks import number, whole
from fishr.errors import InputError, RunFailed, reason
from fishr.files import copy_atomically, json_text, present, write_atomically

ARTIFACTS, SNAPSHOTS = "keeping.json", "checkpoints"


@frozen
class Recording:
    """Statistics of the head that a run records over time; the first and the last weights are always recorded.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> Recording(every=50).due(step=100, last=130), Recording(every=50).due(step=130, last=130)
        (True, True)
    """

    every: int = field(validator=whole(1))  # steps
    # first ones of each training domain; None: all
    samples: int | None = field(default=None, validator=optional(whole(1)))
    epsilon: float = field(default=0.1, validator=number())  # ε of the inconsistency, loss

    def due(self, step: int, last: int) -> bool:
        """Return whether a run of ``last`` updates records the weights after ``step`` of them."""
        return step % self.every == 0 or step == last


@frozen
class Artifacts:
    """Artifacts that a run keeps: snapshots and statistics. None of them changes the run."""

    statistics: Recording | None = None
    checkpoints: bool = False  # keep a snapshot of each

    def save(self, folder: Path) -> None:
        """Write the settings into a run folder; a run that keeps nothing has no such file."""
        if self != Artifacts():
            write_atomically(folder / ARTIFACTS, (json_text(attrs.asdict(self)) + "\n").encode())


def load_artifacts(folder: Path) -> Artifacts:
    """Return the settings that a run folder was made with."""
    path = folder / ARTIFACTS
    if not present(path):
        return Artifacts()
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        statistics = found["statistics"]
        return Artifacts(None if statistics is None else Recording(**statistics), bool(found["checkpoints"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not what fishr wrote; start the run anew under another name") from error


def keep_snapshot(checkpoint: Path, step: int) -> None:
    """Keep a run's checkpoint under its step too, as a hard link where the file system has them."""
    kept = snapshot_path(checkpoint.parent, step)
    try:
        kept.parent.mkdir(exist_ok=True)
        copy_atomically(checkpoint, kept)
    except OSError as error:
        raise RunFailed(f"{kept}: could not be written ({reason(error)}); {checkpoint} is kept") from error


def snapshot_path(folder: Path, step: int) -> Path:
    """Return the path of a step's snapshot in a run folder."""
    return folder / SNAPSHOTS / f"{step:06d}.pt"


def snapshots(folder: Path) -> tuple[Path, ...]:
    """Return the paths of the checkpoints that a run kept on the way, in the order of their steps."""
    found = [path for path in (folder / SNAPSHOTS).glob("*.pt") if path.stem.isdecimal()]
    return tuple(sorted(found, key=lambda path: int(path.stem)))


# Names of version 0.1.
Keeping, kept_checkpoints = Artifacts, snapshots
