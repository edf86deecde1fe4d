"""What a terminal shows, through a pseudo-terminal."""

import os
import pty
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")
ROOT = Path(__file__).resolve().parents[2]


def _on_a_terminal(arguments, folder):
    """All that a command writes to a terminal 140 columns wide."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    command = [sys.executable, str(ROOT / "cli.py"), *arguments]
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # Linux says so when the last writer is gone
                break
            if not chunk:
                break
            shown += chunk
    os.close(master)
    return process.returncode, shown.decode()


@pytest.fixture
def slow(home):
    """Options that make each step take a fifth of a second: a bar appears after two."""
    (home / "late.py").write_text("import time\n\ndef late(step):\n    time.sleep(0.2)\n    return 1.0\n")
    return ["--set", "lr_schedule.kind=late:late", "--plugin", "late"]


def test_a_progress_bar(home, short_fishr, slow):
    code, shown = _on_a_terminal(["train", *short_fishr, *slow, "--set", "steps=12", "--out", "run"], home)
    assert code == 0, shown
    opening, _, bars = shown.rpartition("not divided\r\n")
    assert re.search(r"loss at step 4 = \(risk .* fishr\) / 91257.2\r\nlogged: the loss as divided; .*, $", opening)
    bars, _, rest = bars.partition("\r\n")
    last = re.split(r"\r", bars)[-1]
    rate, numbers = r"[\d.]+(step/s|s/step)", r"loss=[\d.e-]+, fishr=[\d.e+]+"
    assert re.search(rf"100%\|█+\| 12/12 \[\d\d:\d\d<00:00, +{rate}, {numbers}\]", last)
    assert rest.startswith("domain ")
    assert "step 3/12" not in shown
    assert "\r" not in rest.replace("\r\n", "\n")


def test_an_error_stands_on_a_line_of_its_own(home, short):
    arguments = ["train", "colored-digits-erm", *short, "--set", "optimizer.lr=1e30", "--out", "run"]
    code, shown = _on_a_terminal(arguments, home)
    assert code == 1
    assert shown.endswith("checkpoint yet\r\n") or shown.endswith("checkpoint is kept\r\n")
    assert shown.split("\r\n")[-2].startswith("Error: run: step 1: risk is nan")
