"""``python -P -m fishr.sweeps.worker``: a process that runs one job after another, and dies with its parent.

Jobs come in as lines of JSON on standard input; for each, one line goes out on standard output. What a job prints goes
to its log. The first line out says that the process is ready.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

READY = "ready"
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def main() -> None:
    """Run jobs until standard input ends.

    The only argument is a JSON object: "parent", its process id; "plugins", modules whose penalties jobs may name; and
    the fields of ``Conditions``.
    """
    given: dict[str, Any] = json.loads(sys.argv[1])
    _end_with_parent(given["parent"])
    # An interruption in the terminal is the parent's to handle.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    lines = SimpleQueue[str]()
    Thread(target=_read, args=(lines,), daemon=True).start()

    # Here, so that a parent that is gone is noticed while torch loads.
    import attrs

    from fishr.configuration import structure
    from fishr.protocols.domainbed.job import Job
    from fishr.sweeps.execution import Conditions, attempt

    conditions = Conditions(
        Path(given["folder"]),
        given["threads"],
        given["keep"],
        Path(given["data_dir"]) if given["data_dir"] else None,
        given["device"],
    )
    print(READY, file=answers)
    while True:
        job = structure(json.loads(lines.get()), Job, given["plugins"])
        print(json.dumps(attrs.asdict(attempt(job, conditions))), file=answers)


def _end_with_parent(parent: int) -> None:
    """Have the kernel kill this process as soon as its parent ends, where the kernel can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended already.
    if os.getppid() != parent:
        os._exit(1)


def _read(lines: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    # Nobody is there to hear what a job would come to.
    os._exit(0)


if __name__ == "__main__":
    main()
