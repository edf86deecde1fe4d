"""Examples and other scripts in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import fishr

ROOT = Path(fishr.__file__).resolve().parents[1]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def start(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A Python process in a folder, with the package that is tested on its path."""
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment(), capture_output=True, text=True)


def environment() -> dict[str, str]:
    """The variables of such a process."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
