"""Execute the notebooks of this folder and keep their outputs: python docs/notebooks/execute.py."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def executed(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run in a fresh kernel; the first cell that fails raises."""
    notebook = nbformat.read(path, as_version=4)
    # Cells call the command of this environment.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options = {"extra_arguments": ["--matplotlib=inline"], "record_timing": False, "coalesce_streams": True}
    NotebookClient(notebook, timeout=600, **options).execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        nbformat.write(executed(path), path)
