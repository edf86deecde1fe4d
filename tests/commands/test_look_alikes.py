"""Commands that write leave alone what is not theirs, however similar its name is to one of theirs."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

FORMS = (
    "{}.tmp-mine",
    ".{}.tmp-mine",
    "{}.tmp-123",
    ".{}.tmp-123",
    ".{}.mine.fishr-partial",
    ".{}.fishr-partial",
    ".{}.0123456789abcde.fishr-partial",
    "{}.fishr-partial",
    ".{}.lock",
    "{}.part",
    ".{}.unpacking",
)
LOCK = ".{}.fishr-lock"


def _plant(folder, names):
    """A file and a folder for each name in turn, and notes of somebody in what could be an empty lock."""
    for number, form in enumerate((*FORMS, LOCK)):
        for turn, name in enumerate(names):
            path = folder / form.format(name)
            if (number + turn) % 2 and form != LOCK:
                path.mkdir()
                path = path / "content"
            path.write_text("mine")


def _planted(home):
    return {path for path in home.rglob("*") if path.is_file() and path.stat().st_size == 4 and _is_mine(path)}


def _is_mine(path):
    return path.read_bytes() == b"mine"


def _archive(path):
    classes = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
    with zipfile.ZipFile(path, "w") as archive:
        for environment in ("art_painting", "cartoon", "photo", "sketch"):
            for name in classes:
                archive.writestr(f"{environment}/{name}/1.jpg", "an image")


def _features(path):
    from fishr.data.caches import Section
    from fishr.data.caches.feature_cache import write_features

    labels = np.arange(12) % 3

    def compute(domain, start, stop):
        rows = {"features": np.eye(12)[:, :5], "labels": labels, "logits": np.zeros((12, 3)), "ids": np.arange(12)}
        return {name: values[start:stop] for name, values in rows.items()}

    head = {"text": "", "outputs": 3, "parameters": {}}
    sections = [Section(name, "training", 12) for name in "ACPS"]
    write_features(path, {"dtype": "float32"}, head, sections, compute, part_rows=12)


@pytest.mark.slow
def test_names_that_look_alike_survive_every_command_that_writes(call, animals, home, short, forked):
    _plant(home, ["urun", "u.h5", "g.h5", "images.h5", "analysis.h5", "surface.h5", "t.md", "t.png", "swept"])
    _plant(home / "data", ["PACS", "archives"])
    _archive(home / "mine.zip")
    _features(home / "data" / "pacs.h5")
    plan = 'datasets = ["PACS"]\nalgorithms = ["ERM"]\ndraws = 1\ntrials = 1\n[settings]\nsteps = 2\n'
    (home / "plan.toml").write_text(plan + 'hparams = {batch_size = 4}\nfeatures.PACS = "pacs.h5"\n')

    def run(*arguments):
        before = _planted(home)
        said = call(*arguments)
        assert said.code == 0, said
        assert _planted(home) == before, arguments

    run("train", *short, "--out", "urun", "--keep-checkpoints")
    inside = [path.name for path in Path("urun").iterdir()]
    _plant(home / "urun", inside)
    _plant(home / "urun" / "checkpoints", [path.name for path in Path("urun/checkpoints").iterdir()])
    Path("urun/result.json").unlink()
    run("train", "--resume", "urun")
    run("cache", "features", "urun", "-o", "u.h5")
    run("cache", "gradients", "u.h5", "-o", "g.h5")
    run("cache", "images", "data/animals", "-o", "images.h5", "--size", 4, "--workers", 1)
    run("analyze", "urun", "-o", "analysis.h5", "--figures", ".")
    run("landscape", "urun", "--grid", "3", "-o", "surface.h5")
    run("data", "download", "PACS", "--archive", "mine.zip")
    run("sweep", "run", "plan.toml", "--out", "swept", "--workers", 1, "--device", "cpu")
    _plant(home / "swept", [path.name for path in Path("swept").iterdir()])
    _plant(home / "swept" / "jobs", [path.name for path in Path("swept/jobs").iterdir() if path.is_dir()])
    run("sweep", "run", "plan.toml", "--out", "swept", "--workers", 1, "--device", "cpu")
    run("sweep", "collect", "swept", "--out", "t.md", "--figure", "t.png")
    ours = [path for path in home.rglob("*.fishr-partial") if not _is_under_plant(path)]
    assert ours == []


def _is_under_plant(path):
    return _is_mine(path) if path.is_file() else _is_mine(path / "content")
