"""Tables of different commands name domains and write accuracies in one way."""

import json
import re

import numpy as np
import pytest

import fishr
from fishr.landscape import load_surface
from fishr.plots.landscape import line_figure

RUN = """
name = "tumors"
steps = 1
[data]
kind = "HeldOut"
test = [0]
holdout_fraction = 0.25
source = { kind = "NumPyData", path = "scans.npz" }
[featurizer]
kind = "MLP"
widths = []
[head]
kind = "LinearHead"
[loss]
kind = "CrossEntropy"
[objective]
[optimizer]
kind = "Adam"
lr = 0.001
[batches]
kind = "Minibatch"
size = 4
"""
TITLE = r"env\d_(?:in|out) \((?:north|south) wing\)"


@pytest.fixture
def run(home, call):
    """The folder of a trained run on two wings of a hospital, whose classes have names."""
    draw = np.random.default_rng(0)
    labels, wings = np.array(["benign", "malignant"]), np.array(["north wing", "south wing"])
    (home / "data").mkdir()
    arrays = {"labels": labels[np.arange(24) // 2 % 2], "domains": wings[np.arange(24) % 2]}
    np.savez(home / "data/scans.npz", inputs=draw.normal(size=(24, 3)).astype(np.float32), **arrays)
    (home / "run.toml").write_text(RUN)
    assert (done := call("train", "run.toml", "--out", "run")).code == 0, done.err
    return home / "run"


def test_every_command_names_domains_and_accuracies_alike(run, call):
    scores = json.loads((run / "result.json").read_text())["scores"]
    expected = {f"{one['name']} ({one['environment']})": f"{one['accuracy']:.1%}" for one in scores}
    evaluated = call("evaluate", run).out
    drawn = call("landscape", run, "--directions", "line", "--grid", "3", "--lines", "1").out
    measured = call("analyze", run).out
    assert re.findall(rf"^{TITLE}", evaluated, re.M) == list(expected)
    assert dict(re.findall(rf"^({TITLE}) .*?(\S+)$", drawn, re.M)) == expected
    head, row = (next(line for line in measured.splitlines() if line.startswith(start)) for start in ("each", "accur"))
    assert dict(zip(re.findall(TITLE, head), re.findall(r"[\d.]+%", row), strict=True)) == expected


def test_files_for_machines_keep_names_and_shares(run, call):
    found = json.loads(call("landscape", run, "--directions", "line", "--grid", "3", "--format", "json").out)
    (first, *_), trained = found["domains"], json.loads((run / "result.json").read_text())["scores"]
    assert (first["name"], first["accuracy"]) == ("env1_in", pytest.approx(trained[0]["accuracy"]))
    surface = load_surface(run / "landscape-line.h5")
    assert (surface.domains[0], surface.titles[0]) == ("env1_in", "env1_in (south wing)")
    figure = line_figure(surface)
    assert figure.legends[0].get_texts()[0].get_text() == "env1_in (south wing) (training)"


@pytest.mark.parametrize("at", [(), ("--at", "featurizer.0")])
def test_a_run_on_features_has_the_names_of_the_data_behind_them(run, call, at):
    for arguments in (
        ("cache", "features", run, *at, "-o", "file.h5"),
        ("train", "run.toml", "--on-features", "file.h5", "--out", "head"),
    ):
        assert (done := call(*arguments)).code == 0, done.err
    assert re.findall(rf"^{TITLE}", done.out, re.M) == re.findall(rf"^{TITLE}", call("evaluate", run).out, re.M)
    scored = call("evaluate", "head", "--per-class").out
    assert "→ benign" in scored
    assert re.search(r"^malignant ", scored, re.M)
    assert fishr.load_model("head").class_names == ("benign", "malignant")
