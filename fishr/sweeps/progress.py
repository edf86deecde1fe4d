"""How far a sweep is, from its files alone."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import attrs
from attrs import field, frozen

from fishr.protocols.domainbed.records import JobKey
from fishr.sweeps.folder import JOBS, begun_jobs, is_worked_on
from fishr.sweeps.job_files import Failure, Outcome, read_failure, read_outcome

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
class FailedJob:
    """A job that was given up.

    Args:
        key: of the job.
        name: of its folder in jobs/.
        failure: what its folder says of it.

    Example:
        >>> FailedJob(JobKey("PACS", "ERM", (0,), 0, 0), "5f3a", Failure("risk is nan", tries=1)).failure.tries
        1
    """

    key: JobKey
    name: str
    failure: Failure


@frozen(eq=False)
class Seen:
    """What was read of a sweep before, so that a sweep that is watched reads no file twice; it grows.

    Args:
        keys: of jobs, by the name of their folder.
        outcomes: of finished jobs.

    Example:
        >>> Seen().outcomes
        {}
    """

    keys: dict[str, JobKey] = field(factory=dict[str, JobKey])
    outcomes: dict[JobKey, Outcome] = field(factory=dict[JobKey, Outcome])


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
    failures: tuple[FailedJob, ...]

    @property
    def seconds_left(self) -> float | None:
        """Until the end, were as many jobs at work as now; one where none is."""
        return None if self.total.seconds is None else self.total.seconds / max(1, self.total.running)


def progress(folder: Path, keys: Iterable[JobKey], seen: Seen | None = None) -> Progress:
    """Return how far a sweep is, from its files; it may be running.

    Args:
        folder: of the sweep.
        keys: of its plan.
        seen: what was read before; None: nothing.

    Raises:
        InputError: a file is damaged.

    Example:
        >>> found = progress(Path("no-such-sweep"), [JobKey("PACS", "ERM", (0,), 0, 0)])
        >>> found.total.waiting, found.seconds_left
        (1, None)
    """
    seen = seen or Seen()
    alive = is_worked_on(folder)
    begun = begun_jobs(folder, seen.keys)
    cells, failures = dict[tuple[str, str], list[_State]](), list[FailedJob]()
    for key in keys:
        failure = None
        if key not in seen.outcomes and key in begun:
            where = folder / JOBS / begun[key]
            outcome, failure = read_outcome(where), read_failure(where)
            if outcome is not None:
                seen.outcomes[key], failure = outcome, None
            elif failure is not None:
                failures.append(FailedJob(key, begun[key], failure))
        running = alive and failure is None and key in begun
        state = _State(seen.outcomes.get(key), failure is not None, running)
        cells.setdefault((key.dataset, key.algorithm), []).append(state)
    every = [one for cell in cells.values() for one in cell]
    rows = tuple(_row(*key, cell, every) for key, cell in cells.items())
    left = [row.seconds for row in rows if row.seconds is not None]
    total = attrs.evolve(_row(TOTAL, "", every, every), seconds=sum(left) if left else None)
    return Progress(rows, total, tuple(failures))


@frozen
class _State:
    outcome: Outcome | None
    failed: bool
    running: bool


def _row(dataset: str, algorithm: str, cell: list[_State], every: list[_State]) -> Row:
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
