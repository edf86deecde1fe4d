import json

import pytest

from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.sweeps.results import best_validation, dump_lines, result_lines, told_of


def step(number, loss, risk, fishr):
    terms = {"fishr": {"value": fishr, "weight": 2.0}}
    return json.dumps({"step": number, "loss": loss, "risk": risk, "l2": 0.0, "terms": terms, "domain_losses": {}})


def scores(updates, **accuracies):
    entries = [
        {"name": name, "accuracy": accuracy, "samples": samples, "loss": None, "split": "training"}
        for name, (accuracy, samples) in accuracies.items()
    ]
    return json.dumps({"step": updates, "scores": entries})


METRICS = [
    step(0, 1.0, 0.5, 0.5),
    scores(1, env1_in=(0.1, 80), env0_in=(0.2, 160), env0_out=(0.3, 40), env1_out=(0.4, 20)),
    step(1, 2.0, 1.0, 1.0),
    step(2, 4.0, 1.5, 2.5),
    step(3, 9.0, 2.0, 7.0),
    scores(4, env1_in=(0.5, 80), env0_in=(0.6, 160), env0_out=(0.7, 40), env1_out=(0.8, 20)),
]


@pytest.fixture
def lines():
    job = Job("ColoredMNIST", "Fishr", (0,), 1, 2, Settings(steps=4, hparams={"batch_size": 16}))
    return result_lines(job, METRICS, {0: 1.0, 2: 0.5, 3: 0.25}, told_of(job, threads=3, mem_gb=1.5))


def test_lines_are_domainbeds(lines):
    """Steps from 0; epochs of the smallest environment, tested ones included; means since the line before."""
    first, last = lines
    assert (first["step"], first["epoch"]) == (0, 0.0)
    assert (last["step"], last["epoch"]) == (3, pytest.approx(3 / (80 / 16)))
    assert (first["loss"], first["risk"], first["fishr"]) == (1.0, 0.5, 0.5)
    assert (last["loss"], last["risk"], last["fishr"]) == (5.0, 1.5, 3.5)
    assert [first[f"env{i}_{split}_acc"] for i in (0, 1) for split in ("in", "out")] == [0.2, 0.3, 0.1, 0.4]
    assert [last[f"env{i}_{split}_acc"] for i in (0, 1) for split in ("in", "out")] == [0.6, 0.7, 0.5, 0.8]
    assert (first["step_time"], last["step_time"], last["mem_gb"]) == (1.0, 0.375, 1.5)
    assert last["hparams"]["batch_size"] == 16
    assert last["hparams"]["lambda"] > 0
    told = last["args"]
    assert (told["algorithm"], told["dataset"], told["test_envs"]) == ("Fishr", "ColoredMNIST", [0])
    assert (told["hparams_seed"], told["trial_seed"], told["holdout_fraction"], told["threads"]) == (1, 2, 0.2, 3)
    assert (told["protocol"], told["validation"], told["steps"]) == ("domainbed-2021", "clean", 4)
    assert isinstance(told["seed"], int)


def test_a_file_is_read_as_the_records_of_a_sweep(lines, tmp_path):
    from fishr.protocols.domainbed.records import read_records

    folder = tmp_path / "jobs" / "one"
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_bytes(dump_lines(lines))
    (folder / "done").touch()
    read = read_records(tmp_path)
    assert [(record.step, record.accuracies["env1_out"]) for record in read.records] == [(0, 0.4), (3, 0.8)]
    assert read.unfinished == ()
    texts = (folder / "results.jsonl").read_text().splitlines()
    assert [list(json.loads(text)) for text in texts] == [sorted(line) for line in lines]


def test_the_best_validation_looks_at_trained_environments_alone():
    line = {"args": {"test_envs": [1, 2]}, "env0_in_acc": 1.0, "env1_out_acc": 1.0, "env2_out_acc": 1.0}
    lines = [line | {"env0_out_acc": a, "env3_out_acc": b} for a, b in ((0.1, 0.3), (0.5, 0.7), (0.9, 0.0))]
    assert best_validation(lines) == pytest.approx(0.6)
