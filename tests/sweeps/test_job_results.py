import json

import attrs
import pytest
import torch

from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.sweeps.job_files import read_outcome
from fishr.sweeps.job_results import best_validation, common_entries, dump_lines, result_lines
from fishr.training import evaluate
from fishr.training.model import build_model
from fishr.training.state import first_state


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
    return result_lines(job, METRICS, {0: 1.0, 2: 0.5, 3: 0.25}, common_entries(job, threads=3, mem_gb=1.5))


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


TIMES = ("step_time", "mem_gb")


@pytest.fixture
def job(plan):
    """An ERM job whose weights overflow after its first updates."""
    settings = attrs.evolve(plan.settings, hparams=dict(plan.settings.hparams) | {"lr": 3e37})
    return attrs.evolve(plan.jobs()[0], settings=settings)


def _lines(folder, job):
    text = (job_folder(folder, job) / "results.jsonl").read_text()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text.splitlines()]


def test_the_rest_is_what_weights_that_are_nan_score(job, tmp_path):
    outcome = attempt(job, Conditions(tmp_path))
    assert outcome.done
    assert 0 < outcome.diverged < 8
    lines = _lines(tmp_path, job)
    assert [line["step"] for line in lines] == [0, 8, 16, 19]

    experiment = job.experiment()
    domains = experiment.data(experiment.seed, None)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    state = attrs.evolve(state, parameters={k: torch.full_like(p, torch.nan) for k, p in state.parameters.items()})
    scores = {f"{score.name}_acc": score.accuracy for score in evaluate(model, experiment, state, domains)}
    for line in lines[1:]:
        assert {name: line[name] for name in scores} == scores
        assert line["args"] == lines[0]["args"]
        assert line["epoch"] == pytest.approx(lines[0]["epoch"] + line["step"] / (32 / 8))
    assert "loss" in lines[0]


def test_the_same_again_and_never_twice(job, tmp_path):
    first = attempt(job, Conditions(tmp_path))
    lines, folder = _lines(tmp_path, job), job_folder(tmp_path, job)
    assert read_outcome(folder) == attempt(job, Conditions(tmp_path)) == first
    # As if it had been killed before it had written what it came to.
    for name in ("done", "results.jsonl"):
        (folder / name).unlink()
    assert attempt(job, Conditions(tmp_path)).diverged == first.diverged
    assert _lines(tmp_path, job) == lines


def test_a_job_that_does_not_diverge_says_so(plan, tmp_path):
    assert attempt(plan.jobs()[0], Conditions(tmp_path)).diverged is None
