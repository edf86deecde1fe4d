"""The notebooks of the documentation run, and their kept outputs are those of the code."""

import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest

from docs.notebooks.execute import executed

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def _outline(notebook: nbformat.NotebookNode) -> list[Any]:
    """Return of each cell what it printed, without numbers that have decimals, and its number of figures."""
    found = list[Any]()
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        printed = "".join(one.text for one in outputs if one.get("name") == "stdout")
        rounded = re.sub(r"-?\d+\.\d*(?:e[-+]\d+)?|\bnan\b", "#", printed)
        found.append((re.sub(r"[ -]+", " ", rounded), sum("image/png" in one.get("data", {}) for one in outputs)))
    return found


def test_kept_outputs_are_whole_and_small() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), path
        assert {one.output_type for cell in cells for one in cell.outputs} == {"stream", "display_data"}, path
        assert path.stat().st_size < 300_000, path


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_is_kept(path: Path, forked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jupyter_client.launcher.Popen", subprocess.Popen)
    assert _outline(executed(path)) == _outline(nbformat.read(path, as_version=4)), (
        "run python docs/notebooks/execute.py and read the text again"
    )
