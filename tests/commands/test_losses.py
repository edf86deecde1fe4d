"""Every loss from a file: training, resuming, evaluation, analysis and landscapes of its runs."""

import json

import numpy as np
import pytest
import torch
from attrs import evolve

from fishr.configuration import dumps, load
from fishr.training import Experiment, Stepped, run

TEXT = """
name = "short"
steps = 4
evaluate_every = 4
checkpoint_every = 2
featurizer = {{widths = [4]}}
head = {{kind = "LinearHead"}}
loss = {loss}
objective.penalty.fishr = {{kind = "Scaled", schedule = 1.0, penalty = {{kind = "Fishr", ema = 0.9}}}}
optimizer = {{kind = "Adam", lr = 0.01}}
batches = {{kind = "Minibatch", size = 12}}
data = {{kind = "Arrays", training = ["a.npz", "b.npz"], evaluation = ["c.npz"]{classes}}}
"""
SOFTENED = '{kind = "CrossEntropy", label_smoothing = 0.1, class_weights = [1, 2.0, 1], ignore_index = -1}'
# The loss, labels of scores [n, 3], settings of the data, and the column of the accuracy.
LOSSES = {
    "ignored": (SOFTENED, lambda x: np.where(x[:, 0] > 1, -1, x.argmax(1)), ", classes = 3", "accuracy"),
    "soft": ('{kind = "CrossEntropy"}', lambda x: torch.tensor(x).softmax(1).numpy(), "", "accuracy"),
    "several": ('{kind = "BinaryCrossEntropy", positive_weights = [1, 2.0, 1]}', lambda x: x > 0, "", "correct labels"),
    "numbers": ('{kind = "SquaredError"}', lambda x: x.sum(1), ", classes = 1", "accuracy"),
}


@pytest.fixture
def written(home):
    """Write data and a configuration, and return its name."""

    def write(name):
        loss, labels, classes, _ = LOSSES[name]
        for number, domain in enumerate("abc"):
            inputs = np.random.default_rng(number).normal(size=(30, 3)).astype(np.float32)
            np.savez(home / f"{domain}.npz", inputs=inputs, labels=labels(inputs))
        (home / "own.toml").write_text(TEXT.format(loss=loss, classes=classes))
        return "own.toml"

    return write


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_a_run_of_each_loss_is_trained_scored_analyzed_and_drawn(call, home, written, name):
    # The other losses draw the same curves.
    drawn = name in ("several", "numbers")
    said = call("train", written(name), "--data-dir", ".", "--out", "run", drawn=drawn)
    assert said.code == 0, said
    assert LOSSES[name][3] in said.out.splitlines()[0]
    found = json.loads(call("evaluate", "run", "--data-dir", ".", "--format", "json").out)
    recorded = json.loads((home / "run" / "result.json").read_text())["scores"]
    assert found["scores"] == recorded
    model, domain = torch.load(home / "run" / "checkpoint.pt", weights_only=True)["parameters"], np.load("c.npz")
    hidden = (torch.tensor(domain["inputs"]) @ model["featurizer.1.weight"].T + model["featurizer.1.bias"]).relu()
    logits, labels = hidden @ model["head.weight"].T + model["head.bias"], torch.tensor(domain["labels"])
    kept = labels != -1 if name == "ignored" else torch.ones(len(labels), dtype=torch.bool)
    right = {
        "ignored": lambda: (logits.argmax(1) == labels)[kept],
        "soft": lambda: logits.argmax(1) == labels.argmax(1),
        "several": lambda: (logits > 0) == labels,
    }
    expected = right[name]().double().mean().item() if name in right else None
    assert recorded[2]["accuracy"] == (None if expected is None else pytest.approx(expected))
    assert recorded[2]["samples"] == kept.sum()
    assert recorded[2].get("accuracy_name", "accuracy") == LOSSES[name][3]
    table = call("evaluate", "run", "--data-dir", ".").out
    assert LOSSES[name][3] in table.splitlines()[2]
    assert ("calibration error" in table) == (name != "numbers")
    said = call("evaluate", "run", "--data-dir", ".", "--per-class", "--resamples", "0")
    assert said.code == (2 if name == "numbers" else 0), said
    assert ("\nlabel " in said.out) == (name == "several")
    file = json.loads(call("evaluate", "run", "--on", "c.npz", "--format", "json").out)["domains"]
    assert file == [found["domains"][2] | {"source": "c.npz"}]
    said = call("analyze", "run", "--data-dir", ".", drawn=drawn)
    assert (said.code, f"c {kept.sum()}" in said.out) == (0, True), said
    line = ("--grid", "3", "--directions", "line", "--parameters", "all")
    said = call("landscape", "run", "--data-dir", ".", *line, drawn=drawn)
    assert (said.code, "–" in said.out) == (0, name == "numbers"), said
    for kind in ("features", "gradients"):
        said = call("cache", kind, "run", "--data-dir", ".", "--out", f"{kind}.h5")
        assert said.code == (0 if name == "ignored" else 2), said
    if name == "ignored":
        assert f"{sum(s['samples'] for s in recorded)} rows" in said.out
        assert call("analyze", "features.h5").code == call("analyze", "gradients.h5").code == 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_resumed_run_of_each_loss_is_bit_identical(call, home, written, weights, name):
    experiment = load(home / written(name), Experiment)
    going = run(experiment, home / "killed", data_dir=home, experiment_text=dumps(experiment))
    next(event for event in going if isinstance(event, Stepped) and event.state.step == 2)
    going.close()
    assert call("train", "own.toml", "--data-dir", ".", "--out", "whole").code == 0
    assert call("train", "--resume", "killed", "--data-dir", ".").code == 0
    assert weights(home / "killed") == weights(home / "whole")


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("ignored", '{kind = "CrossEntropy"}', "use CrossEntropy(ignore_index=-1)"),
        ("numbers", '{kind = "CrossEntropy"}', "for other numbers use SquaredError()"),
        ("several", '{kind = "CrossEntropy"}', "or use BinaryCrossEntropy() for several labels a sample"),
        (
            "soft",
            '{kind = "BinaryCrossEntropy", positive_weights = [1.0]}',
            "domain 'a': positive_weights: got 1 numbers for 3 outputs",
        ),
        ("soft", '{kind = "CrossEntropy", label_smoothing = 1.5}', "own.toml: loss.label_smoothing: got 1.5, expected"),
        ("soft", '{kind = "CrossEntropy", class_weights = "many"}', 'own.toml: loss.class_weights: got "many"'),
    ],
)
def test_labels_and_settings_that_do_not_fit_are_refused_before_the_first_step(
    refused, home, written, name, loss, message
):
    (home / "own.toml").write_text(
        (home / written(name)).read_text().replace(f"loss = {LOSSES[name][0]}", f"loss = {loss}")
    )
    refused(home, ["train", "own.toml", "--data-dir", "."], message)


def test_a_domain_without_a_label_is_refused(refused, home, written):
    written("ignored")
    np.savez(home / "b.npz", inputs=np.zeros((3, 3), np.float32), labels=np.array([-1, -1, -1]))
    refused(home, ["train", "own.toml", "--data-dir", "."], "domain 'b': no sample has a label, expected at least one")


def test_ignored_samples_are_as_if_they_were_not_in_the_data(call, home, written, weights):
    assert call("train", written("ignored"), "--data-dir", ".", "--out", "every").code == 0
    for domain in "abc":
        found = np.load(home / f"{domain}.npz")
        kept = found["labels"] != -1
        np.savez(home / f"{domain}.npz", inputs=found["inputs"][kept], labels=found["labels"][kept])
    assert call("train", "own.toml", "--data-dir", ".", "--out", "kept").code == 0
    assert weights(home / "every") == weights(home / "kept")
    every, kept = (json.loads((home / run / "result.json").read_text())["scores"] for run in ("every", "kept"))
    assert every == kept


def test_settings_are_written_and_read(home, written):
    experiment = load(home / written("ignored"), Experiment)
    (home / "again.toml").write_text(dumps(experiment))
    assert load(home / "again.toml", Experiment) == experiment
    plain = evolve(experiment, loss=evolve(experiment.loss, label_smoothing=0, class_weights=None, ignore_index=None))
    assert '[loss]\nkind = "CrossEntropy"\n\n' in dumps(plain)
