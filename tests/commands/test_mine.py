"""examples/mine.py: a user's data set, loss, schedule and optimizer, from training to analysis, by the real command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import fishr

ROOT = Path(fishr.__file__).resolve().parents[1]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FISHR = [sys.executable, "-c", "from fishr.commands import main; main()"]
PLAN = """
datasets = ["Rings"]
algorithms = ["ERM", "Fishr"]
test_envs = [[2]]
draws = 1
trials = 1

[settings]
steps = 4
evaluate_every = 2
featurizer = { kind = "MLP", widths = [8] }
loss = { kind = "mine:smoothed" }
optimizer = { kind = "mine:SignDescent" }
hparams = { batch_size = 8 }

[settings.own.Rings]
environments = ["quiet", "noisy", "turned"]
data = { kind = "mine:Rings", samples = 40 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mine")
    for name in ("mine.py", "mine.toml"):
        shutil.copy(EXAMPLES / name, made)
    return made


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*FISHR, *arguments, "--plugin", "mine"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=-1, stderr=-1, text=True)


def finish(folder: Path, *arguments: str) -> str:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


TRAIN = ("train", "mine.toml", "--set", "checkpoint_every=20", "--set", "evaluate_every=100")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    finish(folder, *TRAIN, "--out", "whole")
    return folder / "whole"


@pytest.mark.slow
def test_a_killed_run_is_resumed_bit_identically(folder: Path, whole: Path):
    process = start(folder, *TRAIN, "--out", "killed")
    deadline = time.monotonic() + 120
    while not (folder / "killed" / "checkpoint.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "killed" / "result.json").exists()
    finish(folder, "train", "--resume", "killed")
    for name in ("config.toml", "metrics.jsonl"):
        assert (folder / "killed" / name).read_bytes() == (whole / name).read_bytes()
    import torch

    one, other = (torch.load(run / "checkpoint.pt", weights_only=True) for run in (folder / "killed", whole))
    for name in one["parameters"]:
        assert torch.equal(one["parameters"][name], other["parameters"][name])
    for average, expected in zip(one["optimizer"]["average"], other["optimizer"]["average"], strict=True):
        assert torch.equal(average, expected)


@pytest.mark.slow
def test_the_run_says_what_it_is_made_of(whole: Path):
    table = tomllib.loads((whole / "config.toml").read_text())
    assert table["data"] == {"kind": "mine:Rings", "samples": 200}
    assert table["loss"] == {"kind": "mine:smoothed"}
    assert table["optimizer"] == {"kind": "mine:SignDescent", "lr": 0.003, "beta": 0.9}
    assert table["objective"]["penalty"]["fishr"]["schedule"] == {"kind": "mine:ramp"}
    scores = json.loads((whole / "result.json").read_text())["scores"]
    assert [score["name"] for score in scores] == ["quiet", "noisy", "turned"]
    assert scores[0]["accuracy"] > 0.9


@pytest.mark.slow
def test_the_run_is_evaluated_analyzed_and_cached(folder: Path, whole: Path):
    assert json.loads(finish(folder, "evaluate", str(whole), "--format", "json"))["step"] == 200
    found = json.loads(finish(folder, "analyze", str(whole), "--out", "analysis.h5", "--format", "json"))
    assert found
    finish(folder, "cache", "features", str(whole), "-o", "features.h5")
    finish(folder, "analyze", "features.h5", "--out", "cached.h5")


@pytest.mark.slow
def test_the_parts_are_swept(folder: Path):
    (folder / "plan.toml").write_text(PLAN)
    finish(folder, "sweep", "run", "plan.toml", "--out", "sweep")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    collect = [*FISHR, "sweep", "collect", "sweep"]
    done = subprocess.run(collect, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Rings" in done.stdout
    for job in (folder / "sweep" / "jobs").iterdir():
        assert (job / "done").exists()
        assert 'kind = "mine:SignDescent"' in (job / "config.toml").read_text()
