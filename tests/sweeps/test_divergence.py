"""A job that diverges has the records that DomainBed would have trained on to make."""

import json

import attrs
import pytest
import torch

from fishr.sweeps.execution import Conditions, attempt, read_outcome
from fishr.sweeps.folder import job_folder
from fishr.sweeps.memory import Memory
from fishr.training import evaluate
from fishr.training.state import build_model, first_state

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
    outcome = attempt(job, Conditions(tmp_path), Memory())
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
    first = attempt(job, Conditions(tmp_path), Memory())
    lines, folder = _lines(tmp_path, job), job_folder(tmp_path, job)
    assert read_outcome(folder) == attempt(job, Conditions(tmp_path), Memory()) == first
    # As if it had been killed before it had written what it came to.
    for name in ("done", "results.jsonl"):
        (folder / name).unlink()
    assert attempt(job, Conditions(tmp_path), Memory()).diverged == first.diverged
    assert _lines(tmp_path, job) == lines


def test_a_job_that_does_not_diverge_says_so(plan, tmp_path):
    assert attempt(plan.jobs()[0], Conditions(tmp_path), Memory()).diverged is None
