"""Kill -9 of one method of each mechanism, in its sixth step: the resumed run is bit-identical."""

import importlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fishr.configuration import dumps, load
from fishr.training import Experiment

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]

KILLER = """
import os
import signal
from pathlib import Path

from attrs import frozen


@frozen
class Killer:
    def __call__(self, step: int) -> float:
        if step == 5 and Path("alive").exists():
            Path("alive").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return 1.0
"""
DATA = "{kind='ColoredDigits', training_images=300}"
COMMON = {
    "data": f"{{kind='HeldOut', source={{kind='DataSetEnvironments', data={DATA}}}, test=[3]}}",
    "featurizer": "{widths=[8, 6]}",
    "loss": "{kind='CrossEntropy'}",
    "objective": "{}",
    "batches": "{kind='Minibatch', size=8}",
    "steps": "8",
    "evaluate_every": "2",
    "checkpoint_every": "3",
    "lr_schedule": "{kind='killer:Killer'}",
}
PENALTY = "{kind='Scaled', penalty={kind='Fishr', ema=0.9}, schedule=2.0}"
ADVERSARY = "adversary={width=5, dropout=0.2}"
OPTIMIZERS = "optimizer={kind='SGD', lr=0.1, momentum=0.5}"
CACHED = ("--plugin", "killer", "-o", "layer.h5")
METHODS = {
    "states of risks, SWAD": {
        "objective": "{risk={kind='GroupDRO'}, penalty={coral={kind='Scaled', penalty={kind='CORAL'}, schedule=0.5}}}",
        "average": "{kind='SWAD', converge=2, tolerance=1}",
    },
    "EQRM and its new optimizer, LP-FT": {
        "objective": "{risk={kind='EQRM', burn_in=2}, fresh_optimizer_at=4}",
        "lr_factors": "{featurizer={kind='StepSchedule', at=4, before=0, after=1}}",
        "average": "{kind='SMA', start=2, own_statistics=true}",
    },
    "CDANN and MIRO": {
        "featurizer": "{kind='Anchored', inner={widths=[8, 6]}}",
        "objective": f"{{risk={{kind='CDANN', {ADVERSARY}}}, penalty={{miro={{kind='MIRO'}}}}}}",
    },
    "ADRMX": {
        "featurizer": "{kind='LabelAndDomain', inner={widths=[8, 6]}}",
        "head": "{kind='LabelHead'}",
        "objective": f"{{risk={{kind='ADRMX', {ADVERSARY}, {OPTIMIZERS}}}}}",
    },
    "MTL, domain by domain": {
        "featurizer": "{kind='MTL', inner={widths=[8, 6]}, form='paper', domains=3}",
        "objective": f"{{risk={{kind='SumOfRisks'}}, penalty={{fishr={PENALTY}}}}}",
        "passes": "'domain'",
    },
    "Fish": {"descent": "{kind='Fish'}", "objective": f"{{penalty={{fishr={PENALTY}}}}}"},
    "MLDG": {"descent": "{kind='MLDG', form='paper'}"},
    "Transfer": {"descent": "{kind='Transfer', ascents=2}"},
    "SagNet": {"descent": "{kind='SagNet'}", "objective": "{risk={kind='StyleRandomized'}}"},
}


@pytest.mark.parametrize("name", [*METHODS, "layers above a cached one"])
def test_killed_and_resumed_to_the_same_bits(call, home, name, monkeypatch):
    # The figures' pixels are not what this is about, and take most of the time.
    monkeypatch.setattr(Figure, "draw", lambda *_: None)
    monkeypatch.syspath_prepend(ROOT)
    (home / "killer.py").write_text(KILLER)
    options = ["--plugin", "killer"]
    for key, value in (COMMON | METHODS.get(name, {})).items():
        options += ["--set", f"{key}={value}"]
    if name not in METHODS:
        made = ("train", *options, "--out", "base"), ("cache", "features", "base", "--at", "featurizer.2", *CACHED)
        assert [call(*arguments).code for arguments in made] == [0, 0]
        options += ["--on-features", "layer.h5"]
    said = call("train", *options, "--out", "whole")
    assert said.code == 0, said
    (home / "alive").touch()
    command = [sys.executable, str(ROOT / "cli.py"), "train", *options, "--out", "killed"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert call("train", "--plugin", "killer", "--resume", "killed").code == 0
    importlib.import_module("benchmarks.kill_and_resume").compare(home / "killed", home / "whole")
    config = home / "whole" / "config.toml"
    assert dumps(load(config, Experiment, (), ("killer",))) == config.read_text()
