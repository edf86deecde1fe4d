"""Tests pass however they are started: in the background of a script, by nohup, with signals blocked."""

import subprocess
import sys
from pathlib import Path

import pytest

SHOWN = """
import signal
names = ("SIGINT", "SIGHUP", "SIGTERM", "SIGCHLD")
print([name for name in names if signal.getsignal(getattr(signal, name)) == signal.SIG_IGN])
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""
STARTED = """
import os, signal, sys
for name in ("SIGINT", "SIGHUP", "SIGTERM", "SIGCHLD"):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
os.execv(sys.executable, [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", sys.argv[1]])
"""


def test_a_process_takes_signals_as_one_of_a_terminal_does():
    said = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines() == ["[]", "[]"]


@pytest.mark.slow
def test_whatever_pytest_was_started_with():
    name = test_a_process_takes_signals_as_one_of_a_terminal_does.__name__
    command = [sys.executable, "-c", STARTED, f"{Path(__file__)}::{name}"]
    said = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    assert "[100%]" in said.stdout, said
    assert said.returncode == 0
