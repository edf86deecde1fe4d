"""The jobs of a sweep in worker processes of this machine, each of which runs one group of them after another."""

import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO

import attrs
import torch
from attrs import frozen

from fishr.configuration import unstructure
from fishr.errors import RunFailed
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions
from fishr.sweeps.groups import groups_of
from fishr.sweeps.job_events import JobRetried, SweepEvent, settle
from fishr.sweeps.job_files import Outcome
from fishr.sweeps.worker import READY
from fishr.training.compute import resolve_device

TRIES = 2
UNBORN = 3


def run_local(
    jobs: Iterable[Job], conditions: Conditions, slots: Iterable[Mapping[str, str]], plugins: tuple[str, ...] = ()
) -> Generator[SweepEvent]:
    """Yield the ends of jobs that run in worker processes, which end with this one or with the generator."""
    # The jobs that a worker takes along when it dies are run once more, each alone.
    empty = deque(slots)
    waiting = deque([(job, 1) for job in group] for group in groups_of(tuple(jobs), conditions, len(empty)))
    idle, ready, busy = deque[Worker](), set[Worker](), dict[Worker, dict[int, tuple[Job, int]]]()
    unborn = 0  # workers in a row that died before they began their group
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or busy:
                while waiting and (idle or empty):
                    if not idle:
                        idle.append(start_worker(conditions, empty.popleft(), plugins))
                        selector.register(idle[-1].answers, selectors.EVENT_READ, idle[-1])
                    worker = idle.popleft()
                    busy[worker] = dict(enumerate(waiting.popleft()))
                    ready.discard(worker)
                    worker.send([job for job, _ in busy[worker].values()])
                for key, _ in selector.select():
                    worker: Worker = key.data
                    answer = worker.answer()
                    if answer == READY:
                        ready.add(worker)
                        unborn = 0
                        continue
                    given, broken = busy.get(worker, {}), not answer
                    if answer:
                        index, fields = json.loads(answer)
                        outcome = Outcome(**fields)
                        broken = outcome.broken
                        yield settle(*given.pop(index), outcome, conditions.folder)
                    if broken:
                        if worker in idle:
                            idle.remove(worker)
                        selector.unregister(worker.answers)
                        died = worker.end()
                        empty.append(worker.environment)
                        busy.pop(worker, None)
                        if answer:
                            waiting.extendleft([pair] for pair in reversed(given.values()))
                        elif given and worker not in ready:
                            unborn += 1
                            if unborn == UNBORN:
                                raise RunFailed(f"{conditions.folder}: no worker could be started: {died}")
                            waiting.appendleft([*given.values()])
                        else:
                            for job, tries in reversed(given.values()):
                                if tries < TRIES:
                                    waiting.appendleft([(job, tries + 1)])
                                    yield JobRetried(job, died)
                                else:
                                    yield settle(job, tries, Outcome(message=died), conditions.folder)
                    elif not given:
                        del busy[worker]
                        idle.append(worker)
        finally:
            for key in list(selector.get_map().values()):
                key.data.end()


@frozen(eq=False)
class Worker:
    """A process that runs groups of jobs until ``end``."""

    process: subprocess.Popen[bytes]
    jobs: IO[bytes]
    answers: IO[bytes]
    errors: IO[bytes]  # what it prints outside of jobs
    environment: Mapping[str, str]  # variables beside its parent's

    def send(self, jobs: Sequence[Job]) -> None:
        """Have it run a group of jobs; ``answer`` notices if it has died."""
        with suppress(BrokenPipeError):
            self.jobs.write(json.dumps([unstructure(job) for job in jobs]).encode() + b"\n")

    def answer(self) -> str:
        """Return its next line; empty when it has died."""
        line = self.answers.readline()
        return line.decode().strip() if line.endswith(b"\n") else ""

    def end(self) -> str:
        """Kill it if it lives; return how it died, and the last line that it printed outside of jobs."""
        self.process.kill()
        code = self.process.wait()
        self.jobs.close()
        self.answers.close()
        with self.errors:
            self.errors.seek(0)
            printed = self.errors.read().decode(errors="replace").split("\n")
        last = next((f": {line.strip()}" for line in reversed(printed) if line.strip()), "")
        died = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"its process {died}{last}"


def start_worker(conditions: Conditions, environment: Mapping[str, str], plugins: tuple[str, ...]) -> Worker:
    """Start a worker; its first answer says that it is ready."""
    given = attrs.asdict(conditions) | {"parent": os.getpid(), "plugins": plugins}
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (the worker's, until its end)
    process = subprocess.Popen(
        # -P: no file in the working directory stands in for a module.
        [sys.executable, "-P", "-m", "fishr.sweeps.worker", json.dumps(given, default=str)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    return Worker(process, process.stdin, process.stdout, errors, environment)


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
