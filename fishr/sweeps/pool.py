"""The jobs of a sweep in worker processes of this machine."""

import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from typing import IO

import torch
from attrs import frozen

from fishr.configuration import unstructure
from fishr.errors import RunFailed
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions, JobDone, JobFailed, JobRetried, SweepEvent
from fishr.sweeps.folder import job_folder, write_job
from fishr.sweeps.job_files import Outcome, write_failure
from fishr.sweeps.worker import READY
from fishr.training.compute import resolve_device


@frozen(eq=False)
class Worker:
    """A process that runs jobs; it lives until ``end``.

    Args:
        process: itself, whose standard input and output are pipes.
        errors: where it writes what it prints outside of jobs.
        environment: what distinguishes it from its parent's environment.

    Example:
        >>> process = subprocess.Popen(["cat"], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        >>> Worker(process, tempfile.TemporaryFile(), {}).end()
        'its process died of SIGKILL'
    """

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    environment: Mapping[str, str]

    @property
    def output(self) -> IO[bytes]:
        """Where its answers come from."""
        assert self.process.stdout is not None
        return self.process.stdout

    def send(self, job: Job) -> None:
        """Have it run a job; that it has died is noticed where its answer is awaited."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(unstructure(job)).encode() + b"\n")

    def answer(self) -> str:
        """Its next line; empty when it has died."""
        line = self.output.readline()
        return line.decode().strip() if line.endswith(b"\n") else ""

    def end(self) -> str:
        """Kill it if it lives.

        Returns:
            How it died, and the last thing it printed outside of jobs.
        """
        self.process.kill()
        code = self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.output.close()
        with self.errors:
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").split("\n")
        last = next((f": {line.strip()}" for line in reversed(said) if line.strip()), "")
        died = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"its process {died}{last}"


def start_worker(conditions: Conditions, environment: Mapping[str, str], plugins: tuple[str, ...]) -> Worker:
    """Start a process that is ready for jobs when it has said so.

    Args:
        conditions: of the sweep.
        environment: variables that it gets beside this process's own.
        plugins: modules whose penalties the jobs may name.

    Example:
        >>> from pathlib import Path
        >>> worker = start_worker(Conditions(Path("sweep")), {}, ())
        >>> worker.end()
        'its process died of SIGKILL'
    """
    told = {
        "parent": os.getpid(),
        "plugins": plugins,
        "folder": str(conditions.folder),
        "data_dir": conditions.data_dir and str(conditions.data_dir),
        "threads": conditions.threads,
        "keep": conditions.keep,
        "device": conditions.device,
    }
    errors = tempfile.TemporaryFile()  # noqa: SIM115 (the worker's, until its end)
    process = subprocess.Popen(
        # -P: no file in the working directory stands in for a module.
        [sys.executable, "-P", "-m", "fishr.sweeps.worker", json.dumps(told)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | environment,
    )
    return Worker(process, errors, environment)


def slots(
    threads: int, device: str = "cpu", workers: int | None = None, jobs_per_gpu: int = 1
) -> tuple[dict[str, str], ...]:
    """The environment variables of each worker on this machine.

    Args:
        threads: of each worker.
        device: "cpu", "cuda" or "auto" for CUDA where there is one.
        workers: how many; None: as many as there are cores for, or ``jobs_per_gpu`` a GPU.
        jobs_per_gpu: how many share a GPU.

    Raises:
        InputError: no such device here.

    Example:
        >>> [slot["OMP_NUM_THREADS"] for slot in slots(threads=2, workers=3)]
        ['2', '2', '2']
    """
    common = {"OMP_NUM_THREADS": str(threads)}
    if platform.libc_ver()[0] == "glibc":
        # Freed memory is kept for the next step, as the command line does for itself.
        common |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "THP_MEM_ALLOC_ENABLE": "1"}
    if resolve_device(device).type == "cpu":
        count = workers or max(1, _cores() // threads)
        return (common,) * count
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if gpus == [""]:
        gpus = [str(index) for index in range(torch.cuda.device_count())]
    count = workers or jobs_per_gpu * len(gpus)
    return tuple(common | {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(count))


def _cores() -> int:
    """Those that this process may use, which on a cluster are often not all there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


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
