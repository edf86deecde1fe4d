"""Sweeps as text and JSON: events as progress, estimates and states as tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from tabulate import tabulate

from fishr.commands.progress import note, progress_bar

if TYPE_CHECKING:
    from fishr.sweeps.estimates import Estimate
    from fishr.sweeps.job_events import SweepEvent
    from fishr.sweeps.progress import Progress, Row

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def follow(events: "Iterable[SweepEvent]", interrupted: str, done: int, jobs: int) -> None:
    """Show the progress of a sweep with ``done`` of its ``jobs`` done before, and a line of whatever went wrong."""
    from fishr.sweeps.job_events import JobDone, JobFailed

    failed = 0
    with progress_bar(interrupted, total=jobs, initial=done, unit="job") as bar:
        for event in events:
            if isinstance(event, JobDone | JobFailed):
                done += 1
                failed += isinstance(event, JobFailed)
                bar.set_postfix({"failed": failed} if failed else {}, refresh=False)
                bar.update(1)
            if not isinstance(event, JobDone) or event.outcome.diverged is not None:
                note(bar, _line(event, done, jobs))


def _line(event: "SweepEvent", done: int, jobs: int) -> str:
    from fishr.sweeps.job_events import JobDone, JobFailed

    if isinstance(event, JobDone):
        outcome = event.outcome
        what = f"done in {duration(outcome.seconds)}, validation {outcome.validation:.1%}"
        what += "" if outcome.diverged is None else f", diverged at step {outcome.diverged}"
    elif isinstance(event, JobFailed):
        what = f"failed: {event.failure.message}"
    else:
        what = f"continues in another process: {event.message}"
    return f"{done}/{jobs}  {event.job.key}  {what}"


def duration(seconds: float) -> str:
    """Return a time such as 4.3 s, 1 min 15 s, 1 h 6 min or 1 d 3 h."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    for unit, smaller, long, short in ((_DAY, _HOUR, "d", "h"), (_HOUR, _MINUTE, "h", "min"), (_MINUTE, 1, "min", "s")):
        if seconds >= unit:
            return f"{int(seconds // unit)} {long} {int(seconds % unit // smaller)} {short}"
    raise AssertionError(seconds)


def size(count: int) -> str:
    """Return bytes in MB or GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def estimate_table(found: "Sequence[Estimate]", workers: int | None) -> str:
    """Return estimates as a table; ``workers`` is None if nothing was measured."""
    from fishr.sweeps.estimates import total_of

    total = total_of(found)
    cells = [[e.dataset, e.algorithm, *_costs(e, workers)] for e in (*found, total)]
    costs = ["time", "disk", "memory"] if workers else []
    text = _table(cells, "jobs", "steps", "evaluations", *costs)
    if workers is None or total.footprint is None:
        return text
    notes = [
        f"time: estimated, with {workers} worker{'s' * (workers != 1)}",
        f"disk: estimated, at most while they run; {size(total.footprint.kept)} stay",
        "memory: estimated, at most, of all workers together",
    ]
    if total.footprint.gpu_memory is not None:
        notes.append(f"GPU memory: estimated, {size(total.footprint.gpu_memory)} a worker at most")
    return "\n".join([text, "", *notes])


def estimate_object(found: "Sequence[Estimate]", workers: int | None) -> dict[str, Any]:
    """Return estimates for JSON: seconds of computation, one job after another; footprints in bytes."""
    from fishr.sweeps.estimates import total_of

    rows = [attrs.asdict(e) for e in found]
    return {"rows": rows, "total": attrs.asdict(total_of(found)), "workers": workers}


def _costs(estimate: "Estimate", workers: int | None) -> list[str]:
    counts = [f"{count:,}" for count in (estimate.jobs, estimate.steps, estimate.evaluations)]
    footprint = estimate.footprint
    if estimate.seconds is None or workers is None or footprint is None:
        return counts
    at_once = min(workers, estimate.jobs)
    memory = "" if footprint.memory is None else size(at_once * footprint.memory)
    return [*counts, duration(estimate.seconds / workers), size(footprint.disk(at_once)), memory]


def _table(cells: list[list[str]], *columns: str) -> str:
    headers = ("data set", "algorithm", *columns)
    return tabulate(cells, headers, disable_numparse=True, colalign=("left", "left", *["right"] * len(columns)))


def progress_table(found: "Progress") -> str:
    """Return the progress as a table."""
    total = found.total
    cells = [_cells(row) for row in (*found.rows, total)]
    text = _table(cells, "jobs", "done", "running", "failed", "waiting", "best validation")
    rest = total.running + total.waiting
    summary = f"{total.done} of {total.jobs} jobs done"
    if rest and found.seconds_left is not None:
        summary += f"; about {duration(found.seconds_left)} left with {max(1, total.running)} at work"
    return f"{text}\n\n{summary}"


def _cells(row: "Row") -> list[str]:
    counts = (row.jobs, row.done, row.running, row.failed, row.waiting)
    return [row.dataset, row.algorithm, *map(str, counts), "" if row.best is None else f"{row.best:.1%}"]


def progress_object(found: "Progress") -> dict[str, Any]:
    """Return the progress for JSON."""
    failures = [{"job": str(one.key), "folder": one.name} | attrs.asdict(one.failure) for one in found.failures]
    rows, total = [attrs.asdict(row) for row in found.rows], attrs.asdict(found.total)
    return {"rows": rows, "total": total, "seconds_left": found.seconds_left, "failures": failures}


def failure_text(folder: Path, found: "Progress") -> str:
    """Return the failed jobs, each with its message and the end of its log."""
    from fishr.sweeps.folder import JOBS

    text = ""
    for one in found.failures:
        text += f"\n\n{one.key}  ({folder / JOBS / one.name}, tried {one.failure.tries}×)\n  {one.failure.message}"
        text += "".join(f"\n  | {line}" for line in one.failure.log)
    return text or "\n\nno job failed"
