"""Groups of jobs that are trained together: heads on one file of features that differ in seeds and numbers alone."""

from collections.abc import Generator, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain
from math import ceil

from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions, attempt, logged, working
from fishr.sweeps.folder import job_folder
from fishr.sweeps.job_files import LOG, Outcome
from fishr.training.compute import resolve_device
from fishr.training.head_group import HeadGroup, shared_settings
from fishr.training.loop import Event, Started, Stepped

MOST = {"cpu": 48, "cuda": 128}  # heads of a group; more save little
_WRITERS = 32  # threads that write files at once
_NEW, _WRITTEN = -2, -1  # steps of a job without a folder and with one, before it starts


def groups_of(jobs: Sequence[Job], conditions: Conditions, workers: int) -> tuple[tuple[Job, ...], ...]:
    """Return the jobs by what can be trained together, in order; no group is larger than a worker's share."""
    alike = dict[Hashable, list[Job]]()
    for job in jobs:
        alike.setdefault(_in_common(job, conditions) or job.name, []).append(job)
    most = max(1, min(MOST.get(resolve_device(conditions.device).type, 1), ceil(len(jobs) / max(1, workers))))
    found = list[tuple[Job, ...]]()
    for members in alike.values():
        size = ceil(len(members) / ceil(len(members) / most))
        found += [tuple(members[start : start + size]) for start in range(0, len(members), size)]
    return tuple(found)


def _in_common(job: Job, conditions: Conditions) -> Hashable:
    """Return what the jobs of a group have in common; None for a job that is trained alone."""
    features = None if job.settings.features_at else job.settings.features.get(job.dataset)
    if not conditions.together or features is None or resolve_device(conditions.device).type not in MOST:
        return None
    settings = shared_settings(job.experiment())
    return None if settings is None else (job.dataset, features, len(job.test_envs), repr(settings))


def attempt_together(jobs: Sequence[Job], conditions: Conditions) -> Iterator[tuple[Job, Outcome]]:
    """Run a group to its end, and yield each job with its outcome; one that breaks is run once more alone."""
    # A job that is left alone in its group has the results that it would have with the others, to the bit. The log of
    # the first has the output of all.
    if _in_common(jobs[0], conditions) is None:
        yield jobs[0], attempt(jobs[0], conditions)
        return
    group, log = HeadGroup(), job_folder(conditions.folder, jobs[0]) / LOG
    runs = {index: working(job, conditions, group.functions(index)) for index, job in enumerate(jobs)}
    steps, last, often = dict.fromkeys(runs, _NEW), jobs[0].steps, jobs[0].evaluate_every
    with ThreadPoolExecutor(_WRITERS) as writers:
        while runs:
            # The runs that are behind, so that those that resume catch up; each in turn first, because the first one
            # of a step takes the time of all.
            least = min(steps[index] for index in runs)
            behind, ended = [index for index in runs if steps[index] == least], dict[int, Outcome]()
            first, *others = (behind[(place + least) % len(behind)] for place in range(len(behind)))
            # Folders, checkpoints and results are written in threads: a disk syncs those of many jobs in the time of
            # one. The first one computes for all in this thread, whose memory is kept. A start draws, and a logger may
            # belong to a thread.
            saved = least >= 0 and ((least + 1) % often == 0 or least + 1 >= last)
            writes = (least == _NEW or saved) and not conditions.logs
            with logged(log) if log.parent.is_dir() else nullcontext():
                each = writers.map if writes else map
                events = chain([_next(runs[first])], each(_next, [runs[index] for index in others]))
                for index, event in zip([first, *others], events, strict=True):
                    if isinstance(event, Outcome):
                        ended[index] = event
                        group.leave(index)
                        del runs[index]
                    elif isinstance(event, Started):
                        group.enter(index, event)
                    if event is None:
                        steps[index] = _WRITTEN
                    elif isinstance(event, Started | Stepped):
                        steps[index] = event.state.step
            for index, outcome in sorted(ended.items()):
                yield jobs[index], attempt(jobs[index], conditions) if outcome.broken else outcome


def _next(run: Generator[Event | None, None, Outcome]) -> Event | Outcome | None:
    try:
        return next(run)
    except StopIteration as end:
        return end.value
