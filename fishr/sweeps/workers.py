"""Worker processes, as their parent sees them."""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

import torch
from attrs import frozen

from fishr.configuration import unstructure
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions
from fishr.training.loop import resolve_device


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
