"""``train --record-statistics --keep-checkpoints``: what it leaves, what it refuses, and that it survives kill -9."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from fishr.data.caches import load_tree
from fishr.training import snapshots

ROOT = Path(__file__).resolve().parents[2]
KEEP = ("--record-statistics", "every=3,samples=20,epsilon=0.05", "--keep-checkpoints")


def _statistics(folder):
    return load_tree(folder / "statistics.h5", "fishr-statistics")


def test_a_run_that_keeps_is_the_run_that_does_not(call, home, short_fishr, finished_once, weights):
    said = call("train", *short_fishr, "--seed", 3, "--out", "kept", *KEEP)
    assert said.code == 0, said
    kept = home / "kept"
    assert weights(kept) == weights(finished_once)
    for name in ("metrics.jsonl", "config.toml", "figure.png"):
        assert (kept / name).read_bytes() == (finished_once / name).read_bytes(), name
    added = {path.name for path in kept.iterdir()} - {path.name for path in finished_once.iterdir()}
    assert added == {"statistics.h5", "keeping.json", "checkpoints"}
    assert [path.name for path in snapshots(kept)] == [f"{step:06d}.pt" for step in (0, 2, 4, 6, 7)]
    found = _statistics(kept)
    assert found["steps"].tolist() == [0, 3, 6, 7]
    assert found["count"].tolist() == [20, 20]
    assert found["epsilon"] == 0.05
    assert found["provenance"]["experiment"] == (kept / "config.toml").read_text()
    final = weights(kept)
    assert found["weights"][-1].tobytes() == final["head.weight"] + final["head.bias"]
    assert np.all(found["variance"] >= 0)


def test_recorded_numbers_are_those_of_the_metrics(call, home, short):
    """On all rows the risks and accuracies are what the evaluation says."""
    import json

    assert call("train", *short, "--out", "run", "--record-statistics", "every=3").code == 0
    found = _statistics(home / "run")
    lines = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["scores"] for line in lines if "scores" in line}
    assert set(scores) == {3, 6, 7}
    for step, training in scores.items():
        row = found["steps"].tolist().index(step)
        training = [score for score in training if score["split"] == "training"]
        assert [score["name"] for score in training] == list(found["domains"])
        np.testing.assert_allclose(found["risks"][row], [score["loss"] for score in training], rtol=1e-5)
        np.testing.assert_allclose(found["accuracies"][row], [score["accuracy"] for score in training], rtol=1e-12)


@pytest.mark.slow
def test_a_finished_run_that_keeps_can_be_asked_again(call, home, short, snapshot):
    assert call("train", *short, "--out", "kept", *KEEP).code == 0
    before = snapshot(home / "kept")
    assert call("train", "--resume", "kept").code == 0
    after = snapshot(home / "kept")
    assert before.keys() == after.keys()
    assert all(before[name] == after[name] for name in before if name != "figure.png")


@pytest.mark.slow
def test_killed_in_earnest_it_ends_in_the_same_file(call, home, monkeypatch, forked):
    monkeypatch.syspath_prepend(ROOT)
    killing = importlib.import_module("benchmarks.kill_and_resume")
    small = ("--set", "featurizer.widths=[8]", "--set", "data.copies=1", "--record-statistics", "every=4,samples=20")
    options = (*killing.VARIANTS["minibatches and moving average"], *small)
    assert call("train", *options, "--out", "untouched").code == 0
    assert killing.killed(home / "killed", options, moment=0.3) is not None
    assert call("train", "--resume", home / "killed").code == 0
    for name in ("statistics.h5", "metrics.jsonl", "keeping.json"):
        assert (home / "killed" / name).read_bytes() == (home / "untouched" / name).read_bytes(), name
    names = [sorted(path.name for path in (home / name).iterdir()) for name in ("killed", "untouched")]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("50", "got '50', expected every=STEPS[,samples=N][,epsilon=E], as in every=50"),
        ("samples=3", "got 'samples=3', expected every=STEPS"),
        ("every=two", "got 'every=two', expected every=STEPS"),
        ("every=2,every=3", "got 'every=2,every=3', expected every=STEPS"),
        ("every=2,rows=3", "got 'every=2,rows=3', expected every=STEPS"),
        ("every=0", "--record-statistics: every: got 0, expected a whole number of at least 1"),
        ("every=2,epsilon=nan", "--record-statistics: epsilon: got nan"),
    ],
)
def test_what_cannot_be_recorded_is_told(home, refused, short, text, told):
    refused(home, ["train", *short, "--out", "run", "--record-statistics", text], told)


@pytest.mark.parametrize(
    "given", [["--record-statistics", "every=2"], ["--keep-checkpoints"], ["--on-features", "a.h5"]]
)
def test_a_resumed_run_keeps_what_it_was_begun_with(home, interrupted, refused, given):
    refused(home, ["train", "--resume", interrupted, *given], f"{given[0]}: got it together with --resume")
