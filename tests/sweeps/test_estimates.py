import attrs
import pytest
import torch

from fishr.sweeps import estimates, execution
from fishr.sweeps.estimates import Footprint, calibrate, count_work, peak_memory, total_of
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.training import Stepped


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Measure for a shorter time than a person would."""
    monkeypatch.setattr(estimates, "_ENOUGH", 0.02)


def on_disk(folder):
    """Bytes of a folder in blocks of 4096, as most file systems have them."""
    return sum(-path.stat().st_size // 4096 * -4096 for path in (folder, *folder.rglob("*")))


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["results", "weights"])
def test_the_disk_is_what_a_job_takes(plan, tmp_path, monkeypatch, keep):
    """At once: on a network large enough to count."""
    job = attrs.evolve(plan, algorithms=("Fishr",), settings=attrs.evolve(plan.settings, steps=200)).jobs()[0]
    checkpoints, real = [], execution.run

    def watched(*arguments, **options):
        for event in real(*arguments, **options):
            if isinstance(event, Stepped) and (path := job_folder(tmp_path, job) / "checkpoint.pt").exists():
                checkpoints.append(path.stat().st_size)
            yield event

    monkeypatch.setattr(execution, "run", watched)
    (estimate,) = calibrate([job], keep=keep)
    assert attempt(job, Conditions(tmp_path, keep=keep)).done
    assert estimate.footprint.kept == pytest.approx(on_disk(job_folder(tmp_path, job)), rel=0.15)
    assert estimate.footprint.checkpoint == pytest.approx(max(checkpoints), rel=0.4)


def test_the_memory_is_that_of_this_process(plan):
    held = peak_memory()
    if held is None:
        pytest.skip("this system does not say what a process held")
    assert held > 50e6
    estimate, *_ = calibrate(plan.jobs()[:1])
    assert estimate.footprint.memory >= held + estimate.footprint.checkpoint
    assert estimate.footprint.gpu_memory is None


def test_counts_are_those_of_the_jobs(plan):
    twice = attrs.evolve(plan, datasets=("PACS", "ColoredMNIST"), settings=attrs.evolve(plan.settings, steps=30))
    found = count_work(twice.jobs())
    assert [(e.dataset, e.algorithm, e.jobs, e.steps, e.evaluations) for e in found] == [
        # After updates 1, 9, 17, 25 and 30.
        ("PACS", "ERM", 8, 240, 40),
        ("PACS", "Fishr", 8, 240, 40),
        ("ColoredMNIST", "ERM", 6, 180, 30),
        ("ColoredMNIST", "Fishr", 6, 180, 30),
    ]
    assert {e.seconds for e in found} == {None}


def test_seconds_add_up(plan, monkeypatch):
    monkeypatch.setattr(estimates, "_costs", lambda *given: ((3.0, 0.5, 10.0), Footprint(100, 40)))
    monkeypatch.setattr(estimates, "peak_memory", lambda: 1000)
    (erm, fishr) = calibrate(plan.jobs())
    assert erm.seconds == fishr.seconds == 8 * 3.0 + 160 * 0.5 + 32 * 10.0
    assert erm.footprint == Footprint(kept=8 * 100, checkpoint=40, memory=1040)
    assert total_of([erm, fishr]).footprint == Footprint(kept=16 * 100, checkpoint=40, memory=1040)
    monkeypatch.setattr(estimates, "peak_memory", lambda: None)
    assert total_of(list(calibrate(plan.jobs()))).footprint == Footprint(kept=16 * 100, checkpoint=40)


def test_a_job_of_the_mean_batch_size_is_measured(plan, monkeypatch):
    free = attrs.evolve(plan, draws=9, algorithms=("ERM",), settings=attrs.evolve(plan.settings, hparams={}))
    chosen = []
    costs = ((0.0, 0.0, 0.0), Footprint(0, 0))
    monkeypatch.setattr(estimates, "_costs", lambda job, *given: chosen.append(job) or costs)
    list(calibrate(free.jobs()))
    sizes = [job.hparams["batch_size"] for job in free.jobs()]
    mean = sum(sizes) / len(sizes)
    assert abs(chosen[0].hparams["batch_size"] - mean) == min(abs(size - mean) for size in sizes)


def test_steps_and_evaluations_are_timed_for_what_they_are(plan, monkeypatch):
    """On a clock that moves only in steps and evaluations, by the rows they see."""
    now, real_step, real_evaluate = [0.0], estimates.advance, estimates.evaluate
    weights = []

    def step(model, experiment, state, source):
        now[0] += 2.0
        after, record = real_step(model, experiment, state, source)
        weights.extend(term.weight for term in record.terms.values())
        return after, record

    def score(model, experiment, state, domains):
        now[0] += 0.01 * sum(len(domain.labels) for domain in (*domains.training, *domains.evaluation))
        return real_evaluate(model, experiment, state, domains)

    monkeypatch.setattr(estimates, "advance", step)
    monkeypatch.setattr(estimates, "evaluate", score)
    monkeypatch.setattr(estimates.time, "perf_counter", lambda: now[0])
    # Some rows of each part of an environment stand for all of them.
    monkeypatch.setattr(estimates, "_SAMPLES", 4)
    warm = attrs.evolve(plan.settings, hparams={"batch_size": 8, "penalty_anneal_iters": 19})
    erm, fishr = calibrate(attrs.evolve(plan, settings=warm).jobs())
    # 160 steps; 32 evaluations of the 160 rows of four environments.
    assert erm.seconds == pytest.approx(160 * 2.0 + 32 * 1.6)
    assert fishr.seconds == pytest.approx(erm.seconds)
    assert weights
    assert min(weights) > 0


def test_threads_are_put_back(plan):
    before = torch.get_num_threads()
    found = list(calibrate(plan.jobs(), threads=2))
    assert torch.get_num_threads() == before
    assert all(estimate.seconds > 0 for estimate in found)
