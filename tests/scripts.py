"""Examples and other scripts in a process of their own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fishr

ROOT = Path(fishr.__file__).resolve().parents[1]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
ONE_AFTER_THE_OTHER = """
import json, os, runpy, sys
script, runs = sys.argv[1], json.loads(sys.argv[2])
for folder, arguments in runs:
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")
    os.chdir("..")
"""


def start(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A Python process in a folder, with the package that is tested on its path."""
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment(), capture_output=True, text=True)


def run_each(script: Path, runs: list[tuple[str, list[str]]], folder: Path) -> None:
    """Run a script with several arguments, each time in a folder below, by one process that imports once."""
    done = start(["-c", ONE_AFTER_THE_OTHER, str(script), json.dumps(runs)], folder)
    assert done.returncode == 0, done.stderr


def environment() -> dict[str, str]:
    """The variables of such a process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def start_and_kill(command: list[str], folder: Path, file: str) -> None:
    """Start a Python process in a folder and kill it, without a signal that it could catch, once a file is there."""
    with subprocess.Popen([sys.executable, *command], cwd=folder, env=environment(), stdout=-1, stderr=-1) as process:
        while not (folder / file).exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.kill()
