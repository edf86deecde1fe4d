"""examples/mine.py: a user's data set, loss, schedule and optimizer, trained, killed, resumed, swept and analyzed."""

import json
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CLI = Path(__file__).resolve().parents[2] / "cli.py"
SHORT = ("--set", "steps=60", "--set", "checkpoint_every=10", "--set", "data.samples=60", "--plugin", "mine")
FEW = ("--samples", "12", "--format", "json")
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


@pytest.fixture
def mine(home, monkeypatch):
    """The example's files in the working directory; its module is forgotten afterwards."""
    for name in ("mine.py", "mine.toml"):
        shutil.copy(EXAMPLES / name, home)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield home
    sys.modules.pop("mine", None)


def succeed(call, *arguments):
    said = call(*arguments)
    assert said.code == 0, said.err
    return said.out


@pytest.mark.slow
def test_a_killed_run_is_resumed_bit_identically_and_analyzed(call, mine, forked):
    succeed(call, "train", "mine.toml", *SHORT, "--out", "whole")
    command = [sys.executable, str(CLI), "train", "mine.toml", *SHORT, "--out", "killed"]
    with subprocess.Popen(command, cwd=mine, stdout=-1, stderr=-1) as process:
        while not (mine / "killed" / "checkpoint.pt").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (mine / "killed" / "result.json").exists()
    succeed(call, "train", "--resume", "killed", "--plugin", "mine")
    for name in ("config.toml", "metrics.jsonl"):
        assert (mine / "killed" / name).read_bytes() == (mine / "whole" / name).read_bytes()
    one, other = (torch.load(mine / run / "checkpoint.pt", weights_only=True) for run in ("killed", "whole"))
    for name, weight in one["parameters"].items():
        assert torch.equal(weight, other["parameters"][name])
    for average, expected in zip(one["optimizer"]["average"], other["optimizer"]["average"], strict=True):
        assert torch.equal(average, expected)

    table = tomllib.loads((mine / "whole" / "config.toml").read_text())
    assert table["data"] == {"kind": "mine:Rings", "samples": 60}
    assert table["loss"] == {"kind": "mine:smoothed"}
    assert table["optimizer"] == {"kind": "mine:SignDescent", "lr": 0.003, "beta": 0.9}
    assert table["objective"]["penalty"]["fishr"]["schedule"] == {"kind": "mine:ramp"}
    scores = json.loads((mine / "whole" / "result.json").read_text())["scores"]
    assert [score["name"] for score in scores] == ["quiet", "noisy", "turned"]

    evaluated = json.loads(succeed(call, "evaluate", "whole", "--plugin", "mine", "--format", "json"))
    assert evaluated["step"] == 60
    from_run = succeed(call, "analyze", "whole", "--plugin", "mine", "--out", "a.h5", *FEW)
    succeed(call, "cache", "features", "whole", "--plugin", "mine", "-o", "features.h5")
    assert "--plugin mine" in call("analyze", "features.h5").err
    from_cache = succeed(call, "analyze", "features.h5", "--plugin", "mine", "--out", "b.h5", *FEW)
    assert json.loads(from_run).keys() == json.loads(from_cache).keys()
    assert call("cache", "gradients", "features.h5", "--plugin", "mine", "-o", "gradients.h5").code == 0


@pytest.mark.slow
def test_the_parts_are_swept(call, mine, forked):
    (mine / "plan.toml").write_text(PLAN)
    succeed(call, "sweep", "run", "plan.toml", "--out", "sweep", "--plugin", "mine", "--workers", "1")
    assert "Rings" in succeed(call, "sweep", "collect", "sweep")
    jobs = list((mine / "sweep" / "jobs").iterdir())
    assert len(jobs) == 2
    for job in jobs:
        assert (job / "done").exists()
        assert 'kind = "mine:SignDescent"' in (job / "config.toml").read_text()
