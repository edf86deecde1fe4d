"""A worker process as its parent sees it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

import attrs
from attrs import frozen

from fishr.configuration import unstructure
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions


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
