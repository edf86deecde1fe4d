import attrs
import pytest
import torch

from fishr.sweeps import calibration
from fishr.sweeps.calibration import estimates, measured, total_of
from fishr.sweeps.footprint import Footprint


def test_counts_are_those_of_the_jobs(plan):
    twice = attrs.evolve(plan, datasets=("PACS", "ColoredMNIST"), settings=attrs.evolve(plan.settings, steps=30))
    found = estimates(twice.jobs())
    assert [(e.dataset, e.algorithm, e.jobs, e.steps, e.evaluations) for e in found] == [
        # After updates 1, 9, 17, 25 and 30.
        ("PACS", "ERM", 8, 240, 40),
        ("PACS", "Fishr", 8, 240, 40),
        ("ColoredMNIST", "ERM", 6, 180, 30),
        ("ColoredMNIST", "Fishr", 6, 180, 30),
    ]
    assert {e.seconds for e in found} == {None}


def test_seconds_add_up(plan, monkeypatch):
    monkeypatch.setattr(calibration, "_costs", lambda *given: ((3.0, 0.5, 10.0), Footprint(100, 40)))
    monkeypatch.setattr(calibration, "peak_memory", lambda: 1000)
    (erm, fishr) = measured(plan.jobs())
    assert erm.seconds == fishr.seconds == 8 * 3.0 + 160 * 0.5 + 32 * 10.0
    assert erm.footprint == Footprint(kept=8 * 100, checkpoint=40, memory=1040)
    assert total_of([erm, fishr]).footprint == Footprint(kept=16 * 100, checkpoint=40, memory=1040)
    monkeypatch.setattr(calibration, "peak_memory", lambda: None)
    assert total_of(list(measured(plan.jobs()))).footprint == Footprint(kept=16 * 100, checkpoint=40)


def test_a_job_of_the_mean_batch_size_is_measured(plan, monkeypatch):
    free = attrs.evolve(plan, draws=9, algorithms=("ERM",), settings=attrs.evolve(plan.settings, hparams={}))
    chosen = []
    costs = ((0.0, 0.0, 0.0), Footprint(0, 0))
    monkeypatch.setattr(calibration, "_costs", lambda job, *given: chosen.append(job) or costs)
    list(measured(free.jobs()))
    sizes = [job.hparams["batch_size"] for job in free.jobs()]
    mean = sum(sizes) / len(sizes)
    assert abs(chosen[0].hparams["batch_size"] - mean) == min(abs(size - mean) for size in sizes)


def test_steps_and_evaluations_are_timed_for_what_they_are(plan, monkeypatch):
    """On a clock that moves only in steps and evaluations, by the rows they see."""
    now, real_step, real_evaluate = [0.0], calibration.advance, calibration.evaluate
    weights = []

    def step(model, experiment, state, source):
        now[0] += 2.0
        after, record = real_step(model, experiment, state, source)
        weights.extend(term.weight for term in record.terms.values())
        return after, record

    def score(model, experiment, state, domains):
        now[0] += 0.01 * sum(len(domain.labels) for domain in (*domains.training, *domains.evaluation))
        return real_evaluate(model, experiment, state, domains)

    monkeypatch.setattr(calibration, "advance", step)
    monkeypatch.setattr(calibration, "evaluate", score)
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: now[0])
    # Some rows of each part of an environment stand for all of them.
    monkeypatch.setattr(calibration, "_ROWS", 4)
    warm = attrs.evolve(plan.settings, hparams={"batch_size": 8, "penalty_anneal_iters": 19})
    erm, fishr = measured(attrs.evolve(plan, settings=warm).jobs())
    # 160 steps; 32 evaluations of the 160 rows of four environments.
    assert erm.seconds == pytest.approx(160 * 2.0 + 32 * 1.6)
    assert fishr.seconds == pytest.approx(erm.seconds)
    assert weights
    assert min(weights) > 0


def test_threads_are_put_back(plan):
    before = torch.get_num_threads()
    found = list(measured(plan.jobs(), threads=2))
    assert torch.get_num_threads() == before
    assert all(estimate.seconds > 0 for estimate in found)
