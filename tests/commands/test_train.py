"""``train`` through the real entry point, and what it leaves."""

import gc
import json
import re
import struct
import tomllib
from datetime import datetime
from importlib import import_module

import pytest
import torch

from fishr.commands.shared import loading

FILES = ["checkpoint.pt", "config.toml", "figure.png", "metrics.jsonl", "result.json"]


def _strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _png_size(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", content[16:24])


@pytest.mark.slow
def test_train_through_the_entry_point(cli, home, short_fishr):
    """No recipe, no --out: Fishr on Colored Digits in a folder of runs, plain lines in a pipe, a table."""
    said = cli("train", *short_fishr)
    assert said.code == 0, said.err
    (folder,) = (home / "runs").iterdir()
    assert re.fullmatch(r"colored-digits-\d{8}-\d{6}", folder.name)
    assert sorted(path.name for path in folder.iterdir()) == FILES

    first, second, logged, *lines = said.err.splitlines()
    assert first == "loss at step 0 = risk (mean over domains) + 0.00110795 · Σ‖w‖² + fishr"
    assert second == "loss at step 4 = (risk (mean over domains) + 0.00110795 · Σ‖w‖² + 91257.2 · fishr) / 91257.2"
    assert logged == "logged: the loss as divided; each term times its weight, not divided"
    assert [line.split("  ")[0] for line in lines] == ["step 3/7", "step 6/7", "step 7/7"]
    number = r"\d[\d.e+-]*"
    words = "  ".join(rf"{name} [\d.]+%" for name in ("flip 0.2", "flip 0.1", "reversed", "gray"))
    assert all(re.fullmatch(rf"step \d/7  loss {number}  fishr {number}  {words}", line) for line in lines)
    assert "\r" not in said.err
    assert "\x1b" not in said.err + said.out

    header, rule, *rows, empty, run, figure = said.out.splitlines()
    assert header.split() == ["domain", "split", "samples", "accuracy", "loss"]
    assert (set(rule), empty) == ({"-", " "}, "")
    assert (run, figure) == (f"run: runs/{folder.name}", f"figure: runs/{folder.name}/figure.png")

    result = _strict((folder / "result.json").read_text())
    assert (result["name"], result["seed"], result["steps"]) == ("colored-digits", 0, 7)
    assert result["status"] == "finished"
    assert result["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert result["versions"].keys() == {"python", "torch", "fishr", "numpy", "backpack-for-pytorch"}
    assert result["versions"]["torch"] == str(torch.__version__)
    expected = [(s["name"], s["split"], str(s["samples"]), f"{s['accuracy']:.1%}") for s in result["scores"]]
    cells = [re.split(r"\s{2,}", row) for row in rows]
    assert [tuple(row[:4]) for row in cells] == expected
    assert [row[4] for row in cells] == [f"{s['loss']:.4f}" for s in result["scores"]]

    metrics = [_strict(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics if "loss" in line] == list(range(7))
    weights = [line["terms"]["fishr"]["weight"] for line in metrics if "loss" in line]
    assert weights[3] == 1.0
    assert weights[4] > 90_000
    assert metrics[-1] == {"step": 7, "scores": result["scores"]}

    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 7
    assert checkpoint["experiment_text"] == (folder / "config.toml").read_text()
    width, height = _png_size(folder / "figure.png")
    assert (900 <= width <= 2000, 350 <= height <= 1000) == (True, True)


def test_json_is_one_object(call, short):
    said = call("train", "colored-digits-erm", *short, "--out", "erm", "--format", "json", "--seed", "11")
    assert said.code == 0
    with open("erm/result.json") as file:  # noqa: PTH123
        assert said.out == file.read()
    result = _strict(said.out)
    assert (result["name"], result["seed"]) == ("colored-digits-erm", 11)
    # Nor does it say what the loss is made of.
    assert [line.split("  ")[0] for line in said.err.splitlines()] == ["step 3/7", "step 6/7", "step 7/7"]


def test_options_reach_the_configuration(finished):
    table = tomllib.loads((finished / "config.toml").read_text())
    assert (table["seed"], table["steps"], table["featurizer"]["widths"]) == (3, 7, [8])
    assert table["objective"]["penalty"]["fishr"]["schedule"]["at"] == 4
    assert json.loads((finished / "result.json").read_text())["seed"] == 3


@pytest.mark.slow
def test_the_seed_decides(call, home, short_fishr, finished, weights):
    for name, seed in (("same", 3), ("other", 4)):
        assert call("train", *short_fishr, "--out", name, "--seed", seed).code == 0
    assert weights(home / "same") == weights(finished)
    assert (home / "same" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert weights(home / "other") != weights(finished)


@pytest.mark.slow
def test_two_runs_of_one_second_get_two_folders(call, home, short, monkeypatch):
    class Frozen(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, 3, 4, 5)

    # The package's attribute of that name is the command.
    monkeypatch.setattr(import_module("fishr.commands.train"), "datetime", Frozen)
    for _ in range(2):
        assert call("train", "colored-digits-erm", *short).code == 0
    names = sorted(path.name for path in (home / "runs").iterdir())
    assert names == ["colored-digits-erm-20260102-030405", "colored-digits-erm-20260102-030405-2"]


@pytest.mark.slow
def test_a_name_does_not_lead_out_of_runs(call, home, short):
    for name in ("../../away", "/tmp/away", "..", "a b/c"):
        assert call("train", "colored-digits-erm", *short, "--set", "steps=1", "--set", f"name={name}").code == 0
    assert [path.name for path in home.iterdir()] == ["runs"]
    stems = sorted(re.sub(r"-\d{8}-\d{6}(-\d)?$", "", path.name) for path in (home / "runs").iterdir())
    assert stems == ["a-b-c", "away", "run", "tmp-away"]


def test_the_collector_rests_while_modules_load_and_no_longer():
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
