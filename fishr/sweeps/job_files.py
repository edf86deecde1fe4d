"""Files that say how far a job is: its outcome, its failure, the end of its log, and the times of its steps."""

import json
from contextlib import suppress
from pathlib import Path

import attrs
from attrs import frozen

from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.training.run_folder import LineFile

DONE, FAILED, LOG, TIMES = "done", "failed.json", "log.txt", "times.jsonl"
_LINES, _BYTES = 20, 8192


@frozen
class Outcome:
    """Result of a job."""

    seconds: float = 0.0  # over all its interruptions
    validation: float = 0.0  # best accuracy on held-out splits of training environments, 0 to 1
    diverged: int | None = None  # the step whose loss was not finite
    message: str | None = None  # why it failed
    broken: bool = False  # whether its process may be unable to run another job

    @property
    def done(self) -> bool:
        return self.message is None


@frozen
class Failure:
    """Why a job has no results: a line, its tries in this run of the sweep, and the last lines of its log."""

    message: str
    tries: int
    log: tuple[str, ...] = ()


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Write the file that marks a job as done."""
    done = {"seconds": outcome.seconds, "validation": outcome.validation, "diverged": outcome.diverged}
    write_atomically(folder / DONE, json.dumps(done).encode())


def read_outcome(folder: Path) -> Outcome | None:
    """Return the outcome of a finished job; None: it is not finished."""
    try:
        found = json.loads((folder / DONE).read_bytes())
        return Outcome(float(found["seconds"]), float(found["validation"]), found["diverged"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / DONE}: not what fishr wrote; remove it to finish the job again") from error


def write_failure(folder: Path, message: str, tries: int) -> Failure:
    """Write why a job failed, with the end of its log."""
    failure = Failure(message, tries, _last_lines(folder / LOG))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FAILED, (json.dumps(attrs.asdict(failure), indent=2) + "\n").encode())
    return failure


def read_failure(folder: Path) -> Failure | None:
    """Return why a job failed; None: it did not."""
    try:
        found = json.loads((folder / FAILED).read_bytes())
        return Failure(str(found["message"]), int(found["tries"]), tuple(map(str, found["log"])))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / FAILED}: not what fishr wrote; remove it to retry the job") from error


def _last_lines(path: Path) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _BYTES))
            return tuple(file.read().decode(errors="replace").splitlines()[-_LINES:])
    except FileNotFoundError:
        return ()


def open_times(folder: Path) -> LineFile:
    """Open the times of a job's steps to append to them."""
    path = folder / TIMES
    return LineFile(path, path.stat().st_size if path.exists() else 0)


def time_line(step: int, seconds: float) -> str:
    return json.dumps([step, round(seconds, 6)])


def read_times(folder: Path) -> dict[int, float]:
    """Return the seconds of each step; a step repeated after an interruption counts once, a cut line not at all."""
    found, path = dict[int, float](), folder / TIMES
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError, TypeError):
            step, seconds = json.loads(line)
            found[int(step)] = float(seconds)
    return found
