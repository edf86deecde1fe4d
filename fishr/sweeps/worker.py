"""``python -P -m fishr.sweeps.worker``: a process that runs one group of jobs after another, and dies with its parent.

A group is a line of JSON on standard input, a list of jobs. Each job is answered by one line on standard output, its
index in the list and its outcome; other lines say that the process is ready and that it begins a group. The output of
jobs goes to their logs.
"""

import ctypes
import json
import os
import platform
import signal
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

READY = "ready"
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def main() -> None:
    """Run jobs until standard input ends; the argument is JSON: "parent", and fields of ``Conditions``."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    _end_with_parent(given.pop("parent"))
    _keep_memory()
    # The parent handles an interruption in the terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lines = SimpleQueue[str]()
    Thread(target=_read, args=(lines,), daemon=True).start()

    # Here, so that the end of the parent is noticed while torch loads.
    import attrs

    from fishr.configuration import structure
    from fishr.protocols.domainbed.job import Job
    from fishr.sweeps.execution import Conditions
    from fishr.sweeps.groups import attempt_together

    plugins = given["plugins"]
    folder, data_dir = Path(given.pop("folder")), given.pop("data_dir")
    conditions = Conditions(folder, data_dir=Path(data_dir) if data_dir else None, **given)
    print(READY, file=answers)
    while True:
        line = lines.get()
        print(READY, file=answers)
        jobs = [structure(table, Job, plugins) for table in json.loads(line)]
        for job, outcome in attempt_together(jobs, conditions):
            print(json.dumps([jobs.index(job), attrs.asdict(outcome)]), file=answers)


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent ends, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended already.
    if os.getppid() != parent:
        os._exit(1)


def _keep_memory() -> None:
    """Let glibc keep freed memory: fresh pages for the tensors of each step take up to a fifth of its time."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _read(lines: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    # Nobody is left to take answers.
    os._exit(0)


if __name__ == "__main__":
    main()
