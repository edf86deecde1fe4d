"""Jobs of a plan with labels other than classes: their lines of results, also after a loss that is not finite."""

import json

import numpy as np
import pytest
import torch
from attrs import evolve

from fishr.configuration import load
from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy, CrossEntropy, SquaredError
from fishr.protocols.domainbed.settings import Settings
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.sweeps.plan import Plan
from fishr.training import evaluate
from fishr.training.model import build_model
from fishr.training.state import first_state

PLAN = """
datasets = ["points"]
algorithms = ["Fishr"]
test_envs = [[0]]
draws = 1
trials = 1
[settings]
steps = 3
evaluate_every = 2
hparams = {batch_size = 8, lr = LR}
featurizer = {kind = "MLP", widths = [4]}
loss = LOSS
own.points.environments = ["a", "b", "c"]
own.points.data = {kind = "Arrays", training = ["a.npz", "b.npz"], evaluation = ["c.npz"]CLASSES}
"""
CASES = {
    "ignored": ('{kind = "CrossEntropy", ignore_index = -1}', lambda x: np.where(x[:, 0] > 1, -1, x.argmax(1))),
    "soft": ('{kind = "CrossEntropy", label_smoothing = 0.1}', lambda x: torch.tensor(x).softmax(1).numpy()),
    "several": ('{kind = "BinaryCrossEntropy"}', lambda x: x > 0),
}


@pytest.mark.parametrize("lr", ["0.01", "3e37"])
@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_weights(tmp_path, name, lr):
    loss, labels = CASES[name]
    for number, domain in enumerate("abc"):
        inputs = np.random.default_rng(number).normal(size=(30, 3)).astype(np.float32)
        np.savez(tmp_path / f"{domain}.npz", inputs=inputs, labels=labels(inputs))
    text = PLAN.replace("LOSS", loss).replace("LR", lr).replace("CLASSES", ", classes = 3" if name == "ignored" else "")
    (tmp_path / "plan.toml").write_text(text)
    (job,) = load(tmp_path / "plan.toml", Plan).jobs()
    outcome = attempt(job, Conditions(tmp_path / "sweep", data_dir=tmp_path))
    assert (outcome.done, outcome.diverged is None) == (True, lr == "0.01")
    last = json.loads((job_folder(tmp_path / "sweep", job) / "results.jsonl").read_text().splitlines()[-1])
    experiment = job.experiment()
    domains = experiment.data(experiment.seed, tmp_path)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, 2)
    if lr == "0.01":
        assert all(0 <= value <= 1 for key, value in last.items() if key.endswith("_acc"))
        return
    state = evolve(state, parameters={k: torch.full_like(p, torch.nan) for k, p in state.parameters.items()})
    for score in evaluate(model, experiment, state, domains):
        assert last[f"{score.name}_acc"] == pytest.approx(score.accuracy)


def test_a_loss_without_classes_selects_no_model():
    for loss in (CrossEntropy(0.1), BinaryCrossEntropy()):
        assert Settings(loss=loss).loss == loss
    with pytest.raises(InputError, match="loss: SquaredError predicts no class, expected one that does; acc"):
        Settings(loss=SquaredError())
