"""``evaluate`` against what the run itself recorded."""

import json
import re


def test_json_agrees_with_the_result(call, finished, home, snapshot):
    before = snapshot(home)
    said = call("evaluate", finished, "--format", "json", "--device", "cpu")
    assert (said.code, said.err) == (0, "")
    told = json.loads(said.out)
    result = json.loads((finished / "result.json").read_text())
    assert told == {"run": "finished", "step": 7, "scores": result["scores"]}
    assert said.out.count("\n") == 1
    assert snapshot(home) == before


def test_the_table_agrees_with_the_result(call, finished):
    said = call("evaluate", finished)
    scores = json.loads((finished / "result.json").read_text())["scores"]
    first, empty, header, _, *rows = said.out.splitlines()
    assert (first, empty) == ("finished after 7 steps", "")
    assert header.split() == ["domain", "split", "samples", "accuracy", "loss"]
    expected = [[s["name"], s["split"], str(s["samples"]), f"{s['accuracy']:.1%}", f"{s['loss']:.4f}"] for s in scores]
    assert [re.split(r"\s{2,}", row) for row in rows] == expected


def test_an_interrupted_run_is_scored_where_it_stopped(call, interrupted):
    """The scores are those that training itself saw with these weights."""
    told = json.loads(call("evaluate", interrupted, "--format", "json").out)
    assert told["step"] == 4
    assert call("train", "--resume", interrupted).code == 0
    lines = [json.loads(line) for line in (interrupted / "metrics.jsonl").read_text().splitlines()]
    risk = next(line["domain_losses"] for line in lines if line.get("step") == 4 and "loss" in line)
    for score in told["scores"][:2]:
        assert abs(score["loss"] - risk[score["name"]]) < 1e-6


def test_a_checkpoint_of_another_seed_is_refused(call, finished, home, short_fishr, snapshot):
    """Its weights would fit, so that only what it says of itself tells."""
    assert call("train", *short_fishr, "--seed", 4, "--out", "other").code == 0
    (home / "other" / "checkpoint.pt").replace(finished / "checkpoint.pt")
    before = snapshot(home)
    for arguments in (("evaluate",), ("train", "--resume")):
        said = call(*arguments, finished)
        assert said.code == 2
        assert said.err.startswith("Error: finished/checkpoint.pt: was made with another configuration")
    assert snapshot(home) == before
