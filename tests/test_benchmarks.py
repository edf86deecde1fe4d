"""The benchmarks run and compare like with like; how fast things are is theirs to print, not a test's to judge."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_table_is_printed_and_the_ways_agree() -> None:
    # It exits with 1 when two ways of computing the penalty disagree.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    headings = (
        "Fishr penalty",
        "memory",
        "A whole training step",
        "Diagnostics of",
        "plane",
        "A step of",
        "Streaming rows",
    )
    for heading in headings:
        assert heading.lower() in done.stdout.lower()
    assert done.stdout.count("×") > 6
