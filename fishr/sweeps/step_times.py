"""Seconds of a job's training steps, kept beside its metrics until its results are written."""

import json
from contextlib import suppress
from pathlib import Path

from fishr.training.folders import LineFile

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
