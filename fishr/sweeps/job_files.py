"""Files beside a job's run: its outcome, failure, log and step times."""

import json
from contextlib import suppress
from pathlib import Path

import attrs
from attrs import frozen

from fishr.errors import InputError
from fishr.files import write_atomically
from fishr.training.run_folder import LineFile

DONE, FAILED, LOG = "done", "failed.json", "log.txt"
_LINES, _BYTES = 20, 8192


@frozen
class Outcome:
    """What became of a job; a failure has a message.

    Args:
        seconds: it took, over all its interruptions.
        validation: its best accuracy on the held-out splits of the environments it trained on, 0 to 1.
        diverged: the step whose loss was not finite, after which DomainBed's records are known without training; None:
            it trained to its end.
        message: why it failed; None: it did not.
        broken: whether its process may have been left unable to run another one.

    Example:
        >>> Outcome(message="out of memory").done
        False
    """

    seconds: float = 0.0
    validation: float = 0.0
    diverged: int | None = None
    message: str | None = None
    broken: bool = False

    @property
    def done(self) -> bool:
        """Whether the job has its results."""
        return self.message is None


def read_outcome(folder: Path) -> Outcome | None:
    """What a finished job came to; None of one that is not finished.

    Args:
        folder: of the job.

    Raises:
        InputError: the file that says so is damaged.

    Example:
        >>> read_outcome(Path("no-such-job")) is None
        True
    """
    try:
        found = json.loads((folder / DONE).read_bytes())
        return Outcome(float(found["seconds"]), float(found["validation"]), found["diverged"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / DONE}: not what fishr wrote; remove it to have the job finished again") from error


@frozen
class Failure:
    """Why a job has no results.

    Args:
        message: one line.
        tries: how often it was tried in the last run of the sweep.
        log: the last lines that it printed.

    Example:
        >>> Failure("step 3: risk is nan", tries=1).log
        ()
    """

    message: str
    tries: int
    log: tuple[str, ...] = ()


def write_failure(folder: Path, message: str, tries: int) -> Failure:
    """Keep in a job's folder why it failed, with the end of its log.

    Args:
        folder: of the job; it is made where it is absent.
        message: one line.
        tries: how often it was tried in this run of the sweep.

    Raises:
        RunFailed: it could not be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "log.txt").write_text("warming up\\n")
        ...     failure = write_failure(Path(folder), "out of memory", tries=2)
        ...     failure.log, read_failure(Path(folder)) == failure
        (('warming up',), True)
    """
    failure = Failure(message, tries, last_lines(folder / LOG))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FAILED, (json.dumps(attrs.asdict(failure), indent=2) + "\n").encode())
    return failure


def is_failed(folder: Path) -> bool:
    """Whether a job was given up.

    Example:
        >>> is_failed(Path("no-such-job"))
        False
    """
    return (folder / FAILED).exists()


def read_failure(folder: Path) -> Failure | None:
    """Why a job failed; None if it did not.

    Args:
        folder: of the job.

    Raises:
        InputError: the file that says so is damaged.

    Example:
        >>> read_failure(Path("no-such-job")) is None
        True
    """
    try:
        found = json.loads((folder / FAILED).read_bytes())
        return Failure(str(found["message"]), int(found["tries"]), tuple(map(str, found["log"])))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / FAILED}: not what fishr wrote; remove it to try the job again") from error


def last_lines(path: Path) -> tuple[str, ...]:
    """The end of a text file; nothing of one that is absent.

    Example:
        >>> last_lines(Path("nowhere.txt"))
        ()
    """
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _BYTES))
            return tuple(file.read().decode(errors="replace").splitlines()[-_LINES:])
    except FileNotFoundError:
        return ()


TIMES = "times.jsonl"


def append_to(folder: Path) -> LineFile:
    """Open a job's times to go on at their end.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as parent, append_to(Path(parent)) as times:
        ...     times.append(time_line(0, 0.25))
        ...     read_times(Path(parent))
        {0: 0.25}
    """
    path = folder / TIMES
    return LineFile(path, path.stat().st_size if path.exists() else 0)


def time_line(step: int, seconds: float) -> str:
    """Return the line of a step.

    Example:
        >>> time_line(0, 0.25)
        '[0, 0.25]'
    """
    return json.dumps([step, round(seconds, 6)])


def read_times(folder: Path) -> dict[int, float]:
    """Return the seconds of each step; the last measurement counts, of a step that was repeated after an interruption.

    A line that a kill cut short is left out.

    Example:
        >>> read_times(Path("no-such-job"))
        {}
    """
    found, path = dict[int, float](), folder / TIMES
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(ValueError, TypeError):
            step, seconds = json.loads(line)
            found[int(step)] = float(seconds)
    return found
