"""What is known of a job that failed."""

import json
from pathlib import Path

import attrs
from attrs import frozen

from fishr.errors import InputError
from fishr.files import write_atomically

FAILED, LOG = "failed.json", "log.txt"
_LINES, _BYTES = 20, 8192


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
