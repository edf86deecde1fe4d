"""Kill -9 in earnest: what benchmarks/kill_and_resume.py does twenty times, a few times."""

import importlib
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]

ROOT = Path(__file__).resolve().parents[2]
LEFT, BESIDE = ".checkpoint.pt.0123456789abcdef.fishr-partial", ".beside.0123456789abcdef.fishr-partial"


@pytest.fixture
def killing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.kill_and_resume")


def test_killed_and_resumed_to_the_same_bits(killing, tmp_path):
    name = "minibatches and moving average"
    lines = list(killing.kill_often(tmp_path, kills=2, seed=5, variants={name: killing.VARIANTS[name]}))
    assert sum(line.startswith("kill") for line in lines) == 2
    assert lines[-1].endswith("the same bits as untouched")


def test_killed_before_there_is_a_folder(killing, tmp_path):
    assert killing.killed(tmp_path / "run", killing.VARIANTS["full batch"], moment=-1e-6) == "before there was a folder"
    assert list(tmp_path.iterdir()) == []


def test_a_difference_is_noticed(killing, tmp_path, finished_once):
    """The comparison itself can fail: of weights, of metrics, by a file too many or too few."""
    import shutil

    import torch

    def changed(name, change):
        folder = Path(shutil.copytree(finished_once, tmp_path / name))
        change(folder)
        return folder

    def nudge(folder):
        tree = torch.load(folder / "checkpoint.pt", weights_only=True)
        tree["optimizer"]["moments"]["second"][-1].view(torch.int32).add_(1)
        torch.save(tree, folder / "checkpoint.pt")

    killing.compare(changed("same", lambda folder: None), finished_once)
    changes = {
        "weights": (nudge, "optimizer.moments.second"),
        "metrics": (_append, "metrics.jsonl"),
        "leftover": (lambda folder: (folder / LEFT).touch(), LEFT),
        "beside": (lambda folder: (folder.parent / BESIDE).mkdir(), BESIDE),
    }
    for name, (change, told) in changes.items():
        with pytest.raises(killing.Mismatch, match=told):
            killing.compare(changed(name, change), finished_once)


def _append(folder):
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
