"""The jobs of a sweep in processes of this machine, each of which runs one job after another."""

import json
import selectors
from collections import deque
from collections.abc import Generator, Iterable, Mapping

from fishr.errors import RunFailed
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.events import JobDone, JobFailed, JobRetried, SweepEvent
from fishr.sweeps.execution import Conditions, Outcome
from fishr.sweeps.failures import write_failure
from fishr.sweeps.folder import job_folder
from fishr.sweeps.listing import write_job
from fishr.sweeps.worker import READY
from fishr.sweeps.workers import Worker, start_worker

TRIES = 2
UNBORN = 3


def run_local(
    jobs: Iterable[Job],
    conditions: Conditions,
    slots: Iterable[Mapping[str, str]],
    plugins: tuple[str, ...] = (),
) -> Generator[SweepEvent]:
    """Run jobs in worker processes, each job from wherever it stopped.

    A worker that dies takes only its job with it, which is tried once more. All workers end with this process, however
    it ends, and as soon as the events are not consumed any more.

    Args:
        jobs: to run, in the order in which they begin.
        conditions: of the sweep.
        slots: the environment variables of each worker.
        plugins: modules whose penalties the jobs may name.

    Yields:
        What becomes of each job, in the order of their ends.

    Raises:
        RunFailed: no worker can be started, or a file could not be written.

    Example:
        >>> from pathlib import Path
        >>> list(run_local([], Conditions(Path("sweep")), slots=[{}]))
        []
    """
    waiting, empty = deque((job, 1) for job in jobs), deque(slots)
    idle, ready, busy = deque[Worker](), set[Worker](), dict[Worker, tuple[Job, int]]()
    unborn = 0  # workers in a row that died before they were ready
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or busy:
                while waiting and (idle or empty):
                    if not idle:
                        idle.append(start_worker(conditions, empty.popleft(), plugins))
                        selector.register(idle[-1].output, selectors.EVENT_READ, idle[-1])
                    worker = idle.popleft()
                    busy[worker] = waiting.popleft()
                    worker.send(busy[worker][0])
                for key, _ in selector.select():
                    worker: Worker = key.data
                    answer = worker.answer()
                    if answer == READY:
                        ready.add(worker)
                        unborn = 0
                        continue
                    outcome, died = Outcome(**json.loads(answer)) if answer else None, ""
                    job, tries = busy.pop(worker, (None, 0))
                    if outcome is None or outcome.broken:
                        if worker in idle:
                            idle.remove(worker)
                        selector.unregister(worker.output)
                        died = worker.end()
                        empty.append(worker.environment)
                    else:
                        idle.append(worker)
                    if job is None:
                        continue
                    if outcome is not None:
                        yield settled(job, tries, outcome, conditions)
                    elif worker not in ready:
                        unborn += 1
                        if unborn == UNBORN:
                            raise RunFailed(f"{conditions.folder}: no worker could be started: {died}")
                        waiting.appendleft((job, tries))
                    elif tries < TRIES:
                        waiting.appendleft((job, tries + 1))
                        yield JobRetried(job, died)
                    else:
                        yield settled(job, tries, Outcome(message=died), conditions)
        finally:
            for key in list(selector.get_map().values()):
                key.data.end()


def settled(job: Job, tries: int, outcome: Outcome, conditions: Conditions) -> JobDone | JobFailed:
    """The event of a job's end; the folder of one that failed keeps why.

    Example:
        >>> from pathlib import Path
        >>> settled(Job("PACS", "ERM", (0,), 0, 0), 1, Outcome(seconds=2.5), Conditions(Path("sweep"))).outcome.seconds
        2.5
    """
    if outcome.message is None:
        return JobDone(job, outcome)
    folder = job_folder(conditions.folder, job)
    # Its process may have died before it wrote which job it was.
    write_job(folder, job)
    return JobFailed(job, write_failure(folder, outcome.message, tries))
