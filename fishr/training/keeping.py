"""What a run keeps beside its last checkpoint and its metrics: statistics over time, checkpoints on the way."""

import json
from pathlib import Path
from typing import Any

import attrs
from attrs import field, frozen
from attrs.validators import optional

from fishr.errors import InputError, RunFailed
from fishr.files import copy_atomically, present, write_atomically
from fishr.training.checks import number, whole

KEEPING, CHECKPOINTS = "keeping.json", "checkpoints"


@frozen
class Recording:
    """Which statistics over time are recorded.

    Args:
        every: steps between two records; the first and the last weights are always recorded.
        samples: the first so many rows of each training domain are looked at; None: all.
        epsilon: ε of the inconsistency, loss.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> Recording(every=50).due(step=100, last=130), Recording(every=50).due(step=130, last=130)
        (True, True)
    """

    every: int = field(validator=whole(1))
    samples: int | None = field(default=None, validator=optional(whole(1)))
    epsilon: float = field(default=0.1, validator=number())

    def due(self, step: int, last: int) -> bool:
        """Whether the weights after ``step`` updates are recorded in a run of ``last``."""
        return step % self.every == 0 or step == last


@frozen
class Keeping:
    """What a run keeps on the way.

    Args:
        statistics: records of the head's statistics; None: none.
        checkpoints: every checkpoint, not the last alone.

    Example:
        >>> Keeping().text()
        '{"checkpoints": false, "statistics": null}'
    """

    statistics: Recording | None = None
    checkpoints: bool = False

    def text(self) -> str:
        """As one line of JSON."""
        return json.dumps(attrs.asdict(self), sort_keys=True)

    def save(self, folder: Path) -> None:
        """Write it where ``load_keeping`` finds it; nothing where nothing is kept."""
        if self != Keeping():
            write_atomically(folder / KEEPING, (self.text() + "\n").encode())


def load_keeping(folder: Path) -> Keeping:
    """What the run of a folder was begun with.

    Raises:
        InputError: the file that says so is damaged.

    Example:
        >>> load_keeping(Path("no-such-run"))
        Keeping(statistics=None, checkpoints=False)
    """
    path = folder / KEEPING
    if not present(path):
        return Keeping()
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        statistics = found["statistics"]
        return Keeping(None if statistics is None else Recording(**statistics), bool(found["checkpoints"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not what fishr wrote; start the run anew under another name") from error


def keep_checkpoint(checkpoint: Path, step: int) -> None:
    """Keep a run's newest checkpoint under its step as well; the same bytes on disk where the file system links.

    Args:
        checkpoint: RUN/checkpoint.pt, which is only ever replaced, never written into.
        step: updates made before it.

    Raises:
        RunFailed: it could not be kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "checkpoint.pt").write_bytes(b"weights")
        ...     keep_checkpoint(Path(folder, "checkpoint.pt"), step=100)
        ...     [path.name for path in kept_checkpoints(Path(folder))]
        ['000100.pt']
    """
    kept = kept_path(checkpoint.parent, step)
    try:
        kept.parent.mkdir(exist_ok=True)
        copy_atomically(checkpoint, kept)
    except OSError as error:
        raise RunFailed(f"{kept}: could not be written ({error.strerror}); {checkpoint} is kept") from error


def kept_path(folder: Path, step: int) -> Path:
    """Where a run folder keeps the checkpoint of a step.

    Example:
        >>> kept_path(Path("run"), 100).as_posix()
        'run/checkpoints/000100.pt'
    """
    return folder / CHECKPOINTS / f"{step:06d}.pt"


def kept_checkpoints(folder: Path) -> tuple[Path, ...]:
    """The checkpoints that a run kept on its way, in the order of their steps.

    Args:
        folder: of the run.

    Returns:
        Their paths; none of a run that kept its last checkpoint alone.

    Example:
        >>> kept_checkpoints(Path("no-such-run"))
        ()
    """
    found = [path for path in (folder / CHECKPOINTS).glob("*.pt") if path.stem.isdecimal()]
    return tuple(sorted(found, key=lambda path: int(path.stem)))
