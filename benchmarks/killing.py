"""Processes that are killed on purpose: started, waited for, killed at a moment or let through."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300.0


class Mismatch(Exception):
    """A process that was killed, or what it left, is not what it should be."""


def start_python(*arguments: str) -> subprocess.Popen[str]:
    """A Python of one thread in the project's root, since bits depend on the number of threads."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
    """Wait until something happened or the process ended.

    Raises:
        Mismatch: neither did, for minutes.
    """
    deadline = time.monotonic() + PATIENCE
    while not happened() and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            raise Mismatch(f"a process showed no sign of life within {PATIENCE:g} s")
        time.sleep(0.001)


def ended(process: subprocess.Popen[str]) -> None:
    """Let a process through.

    Raises:
        Mismatch: it failed.
    """
    _, errors = process.communicate(timeout=PATIENCE)
    if process.returncode != 0:
        raise Mismatch(f"a process ended with exit code {process.returncode}: {errors}")


def kill_after(process: subprocess.Popen[str], seconds: float) -> bool:
    """Kill a process with SIGKILL after so many seconds; False if it had ended well before.

    Raises:
        Mismatch: it failed, or died of something else.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    # It may have ended by itself at any moment before.
    if process.wait() == -signal.SIGKILL:
        return True
    ended(process)
    return False


def report(lines: Iterable[str], verdict: str) -> int:
    """Print lines as they come and the verdict; 1 if they end in a mismatch."""
    try:
        for line in lines:
            print(line, flush=True)
    except Mismatch as mismatch:
        print(f"FAILED: {mismatch}")
        return 1
    print(verdict)
    return 0
