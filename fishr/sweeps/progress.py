"""How far a sweep is, from its files alone."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import attrs
from attrs import frozen

from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Outcome, read_outcome
from fishr.sweeps.failures import Failure, read_failure
from fishr.sweeps.folder import JOBS, is_worked_on, job_folder

TOTAL = "total"


@frozen
class Row:
    """Jobs of one data set and algorithm, or of all.

    Args:
        dataset: by name, or "total".
        algorithm: by name; empty in the total.
        done: jobs with results.
        running: jobs that a process works on.
        failed: jobs that were given up.
        waiting: jobs that have not begun, or were interrupted.
        best: the best accuracy of a finished job on the held-out splits it was selected by, 0 to 1; None: none is done.
        seconds: of computation left, were each of the rest to take what the finished ones took on average, those of
            the same data set and algorithm where there are some; None: nothing is done.

    Example:
        >>> Row("PACS", "ERM", done=3, running=1, failed=0, waiting=2).jobs
        6
    """

    dataset: str
    algorithm: str
    done: int
    running: int
    failed: int
    waiting: int
    best: float | None = None
    seconds: float | None = None

    @property
    def jobs(self) -> int:
        """All of them."""
        return self.done + self.running + self.failed + self.waiting


@frozen
class Progress:
    """How far a sweep is.

    Args:
        rows: by data set and algorithm, in the plan's order.
        total: of all of them.
        failures: of the jobs that were given up.

    Example:
        >>> Progress((), Row("total", "", 1, 0, 0, 0), ()).total.jobs
        1
    """

    rows: tuple[Row, ...]
    total: Row
    failures: tuple[tuple[Job, Failure], ...]

    @property
    def seconds_left(self) -> float | None:
        """Until the end, were as many jobs at work as now; one where none is."""
        return None if self.total.seconds is None else self.total.seconds / max(1, self.total.running)


def progress(folder: Path, jobs: Iterable[Job], seen: dict[str, Outcome] | None = None) -> Progress:
    """Look at the files of a sweep, which may be running.

    Args:
        folder: of the sweep.
        jobs: of its plan.
        seen: outcomes by name of job that were read before, to which those read now are added; None: none.

    Returns:
        How far it is.

    Raises:
        InputError: a file is damaged.

    Example:
        >>> found = progress(Path("no-such-sweep"), [Job("PACS", "ERM", (0,), 0, 0)])
        >>> found.total.waiting, found.seconds_left
        (1, None)
    """
    outcomes = {} if seen is None else seen
    alive = is_worked_on(folder)
    begun = {path.name for path in (folder / JOBS).iterdir()} if (folder / JOBS).is_dir() else set[str]()
    cells, failures = dict[tuple[str, str], list[_Seen]](), list[tuple[Job, Failure]]()
    for job in jobs:
        name = job.name
        if name not in outcomes and name in begun:
            where = job_folder(folder, job)
            outcome, failure = read_outcome(where), read_failure(where)
            if outcome is not None:
                outcomes[name] = outcome
            elif failure is not None:
                failures.append((job, failure))
        failed = bool(failures) and failures[-1][0] is job
        cells.setdefault((job.dataset, job.algorithm), []).append(
            _Seen(outcomes.get(name), failed, running=alive and not failed and name in begun)
        )
    every = [one for cell in cells.values() for one in cell]
    rows = tuple(_row(*key, cell, every) for key, cell in cells.items())
    left = [row.seconds for row in rows if row.seconds is not None]
    total = attrs.evolve(_row(TOTAL, "", every, every), seconds=sum(left) if left else None)
    return Progress(rows, total, tuple(failures))


@frozen
class _Seen:
    outcome: Outcome | None
    failed: bool
    running: bool


def _row(dataset: str, algorithm: str, cell: list[_Seen], every: list[_Seen]) -> Row:
    done = [one.outcome for one in cell if one.outcome is not None]
    failed = sum(one.failed for one in cell)
    running = sum(one.running for one in cell if one.outcome is None)
    rest = len(cell) - len(done) - failed
    like = done or [one.outcome for one in every if one.outcome is not None]
    return Row(
        dataset,
        algorithm,
        done=len(done),
        running=running,
        failed=failed,
        waiting=rest - running,
        best=max((outcome.validation for outcome in done), default=None),
        seconds=rest * fmean(outcome.seconds for outcome in like) if like else None,
    )
