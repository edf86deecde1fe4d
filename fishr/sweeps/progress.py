"""Progress of a sweep, from its files alone."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Literal

import attrs
from attrs import field, frozen

from fishr.protocols.domainbed.records import JobKey
from fishr.sweeps.folder import JOBS, begun_jobs, is_worked_on
from fishr.sweeps.job_files import Failure, Outcome, read_failure, read_outcome

TOTAL = "total"
_State = Outcome | Literal["running", "failed", "waiting"]  # of a job


@frozen
class Row:
    """Numbers of jobs of one data set and method, or of all ("total")."""

    dataset: str
    algorithm: str
    done: int
    running: int
    failed: int
    waiting: int  # not begun, or interrupted
    best: float | None = None  # accuracy of a finished job on its held-out splits, 0 to 1
    seconds: float | None = None  # of computation left, by the mean of finished jobs; None: nothing is done

    @property
    def jobs(self) -> int:
        return self.done + self.running + self.failed + self.waiting


@frozen
class FailedJob:
    """A failed job: its key, the name of its folder, and its failure."""

    key: JobKey
    name: str
    failure: Failure


@frozen(eq=False)
class FilesRead:
    """Cache of files, so that watching a sweep reads none twice: keys by folder name, and outcomes."""

    keys: dict[str, JobKey] = field(factory=dict[str, JobKey])
    outcomes: dict[JobKey, Outcome] = field(factory=dict[JobKey, Outcome])


@frozen
class Progress:
    """Rows by data set and method in the plan's order, their total, and the failed jobs."""

    rows: tuple[Row, ...]
    total: Row
    failures: tuple[FailedJob, ...]

    @property
    def seconds_left(self) -> float | None:
        """Time to the end with as many running jobs as now, at least one."""
        return None if self.total.seconds is None else self.total.seconds / max(1, self.total.running)


def progress(folder: Path, keys: Iterable[JobKey], seen: FilesRead | None = None) -> Progress:
    """Return the progress of a sweep with these jobs; it may be running."""
    seen = seen or FilesRead()
    alive = is_worked_on(folder)
    begun = begun_jobs(folder, seen.keys)
    cells, failures = dict[tuple[str, str], list[_State]](), list[FailedJob]()
    for key in keys:
        state: _State = "running" if alive and key in begun else "waiting"
        if key in seen.outcomes:
            state = seen.outcomes[key]
        elif key in begun:
            where = folder / JOBS / begun[key]
            if (outcome := read_outcome(where)) is not None:
                state = seen.outcomes[key] = outcome
            elif (failure := read_failure(where)) is not None:
                state = "failed"
                failures.append(FailedJob(key, begun[key], failure))
        cells.setdefault((key.dataset, key.algorithm), []).append(state)
    every: list[_State] = [one for cell in cells.values() for one in cell]
    rows = tuple(_row(*key, cell, every) for key, cell in cells.items())
    left = [row.seconds for row in rows if row.seconds is not None]
    total = attrs.evolve(_row(TOTAL, "", every, every), seconds=sum(left) if left else None)
    return Progress(rows, total, tuple(failures))


def _row(dataset: str, algorithm: str, cell: list[_State], every: list[_State]) -> Row:
    done = [one for one in cell if isinstance(one, Outcome)]
    running, failed, waiting = (cell.count(state) for state in ("running", "failed", "waiting"))
    like = done or [one for one in every if isinstance(one, Outcome)]
    best = max((outcome.validation for outcome in done), default=None)
    seconds = (running + waiting) * fmean(outcome.seconds for outcome in like) if like else None
    return Row(dataset, algorithm, len(done), running, failed, waiting, best, seconds)
