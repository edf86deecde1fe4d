"""The jobs of a sweep in worker processes of this machine, each of which runs one group of them after another."""

import json
import os
import platform
import selectors
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Any

import torch
from attrs import field, frozen

from fishr.errors import RunFailed
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions
from fishr.sweeps.groups import groups_of
from fishr.sweeps.job_events import JobRetried, SweepEvent, settle
from fishr.sweeps.job_files import Outcome
from fishr.sweeps.worker import READY
from fishr.sweeps.worker_process import Worker, start_worker
from fishr.training.compute import resolve_device

TRIES = 2
UNBORN = 3  # workers in a row that die before they begin their group

# A job and the number of the try.
_Try = tuple[Job, int]


def run_local(
    jobs: Iterable[Job], conditions: Conditions, slots: Iterable[Mapping[str, str]], plugins: tuple[str, ...] = ()
) -> Generator[SweepEvent]:
    """Yield the ends of jobs that run in worker processes, which end with this one or with the generator."""
    environments = deque(slots)
    groups = groups_of(tuple(jobs), conditions, len(environments))
    pool = _Pool(conditions, plugins, environments, deque([(job, 1) for job in group] for group in groups))
    with pool.selector:
        try:
            while pool.waiting or pool.busy:
                pool.hand_out()
                for worker in pool.answering():
                    yield from pool.events(worker)
        finally:
            pool.end()


@frozen(eq=False)
class _Pool:
    """Workers, and the groups of jobs that wait for them."""

    conditions: Conditions
    plugins: tuple[str, ...]
    environments: deque[Mapping[str, str]]  # of workers to be started
    waiting: deque[list[_Try]]
    idle: deque[Worker] = field(factory=deque)
    busy: dict[Worker, dict[int, _Try]] = field(factory=dict)  # jobs without an answer, by their index in the group
    begun: set[Worker] = field(factory=set)  # workers that began their group
    unborn: list[str] = field(factory=list)  # how the last workers died, if none of them began its group
    selector: selectors.DefaultSelector = field(factory=selectors.DefaultSelector)

    def hand_out(self) -> None:
        """Give groups to workers, as long as there are both."""
        while self.waiting and (self.idle or self.environments):
            worker = self.idle.popleft() if self.idle else self._start()
            self.busy[worker] = dict(enumerate(self.waiting.popleft()))
            self.begun.discard(worker)
            worker.send([job for job, _ in self.busy[worker].values()])

    def answering(self) -> list[Worker]:
        """Wait for workers that answer or have died."""
        return [key.data for key, _ in self.selector.select()]

    def events(self, worker: Worker) -> Iterator[SweepEvent]:
        """Read the answer of a worker, and yield what it says."""
        answer = worker.answer()
        if answer == READY:
            self.begun.add(worker)
            self.unborn.clear()
        elif answer:
            yield from self._one_ended(worker, *json.loads(answer))
        else:
            yield from self._lost(worker)

    def end(self) -> None:
        """End all workers."""
        for key in list(self.selector.get_map().values()):
            key.data.end()

    def _start(self) -> Worker:
        worker = start_worker(self.conditions, self.environments.popleft(), self.plugins)
        self.selector.register(worker.answers, selectors.EVENT_READ, worker)
        return worker

    def _end(self, worker: Worker) -> str:
        """End a worker, so that another one can be started in its place; return how it died."""
        if worker in self.idle:
            self.idle.remove(worker)
        self.busy.pop(worker, None)
        self.selector.unregister(worker.answers)
        died = worker.end()
        self.environments.append(worker.environment)
        return died

    def _one_ended(self, worker: Worker, index: int, fields: dict[str, Any]) -> Iterator[SweepEvent]:
        outcome, rest = Outcome(**fields), self.busy[worker]
        yield settle(*rest.pop(index), outcome, self.conditions.folder)
        if outcome.broken:
            self._end(worker)
            self.waiting.extendleft([each] for each in reversed(rest.values()))
        elif not rest:
            del self.busy[worker]
            self.idle.append(worker)

    def _lost(self, worker: Worker) -> Iterator[SweepEvent]:
        rest = self.busy.get(worker, {})
        died = self._end(worker)
        if rest and worker not in self.begun:
            self.unborn.append(died)
            if len(self.unborn) == UNBORN:
                raise RunFailed(f"{self.conditions.folder}: no worker could be started: {died}")
            self.waiting.appendleft([*rest.values()])
            return
        # The jobs that a worker takes along when it dies are run once more, each alone.
        for job, tries in reversed(rest.values()):
            if tries < TRIES:
                self.waiting.appendleft([(job, tries + 1)])
                yield JobRetried(job, died)
            else:
                yield settle(job, tries, Outcome(message=died), self.conditions.folder)


def slots(
    threads: int, device: str = "cpu", workers: int | None = None, jobs_per_gpu: int = 1
) -> tuple[dict[str, str], ...]:
    """Return the environment variables of each worker: as many as there are cores for, or ``jobs_per_gpu`` a GPU."""
    common = {"OMP_NUM_THREADS": str(threads)}
    if platform.libc_ver()[0] == "glibc":
        # Freed memory is kept for the next step, as the command line does for itself.
        common |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "THP_MEM_ALLOC_ENABLE": "1"}
    if resolve_device(device).type == "cpu":
        return (common,) * (workers or max(1, _cores() // threads))
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if gpus == [""]:
        gpus = [str(index) for index in range(torch.cuda.device_count())]
    count = workers or jobs_per_gpu * len(gpus)
    return tuple(common | {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count))


def _cores() -> int:
    """Return the number of cores that this process may use, which on a cluster are often not all there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
