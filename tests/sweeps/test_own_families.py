"""A plan whose data, featurizer, head, loss, optimizer and penalty are of plugins: read, run, resumed, tabled."""

import shutil
from pathlib import Path

import pytest

from fishr.configuration import dumps, load
from fishr.protocols.domainbed.collection import dataset_tables
from fishr.protocols.domainbed.records import read_records
from fishr.sweeps import execution
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder, planned_keys, sweep_folder
from fishr.sweeps.plan import Plan
from fishr.training import Experiment, Stepped

MINE = Path(__file__).resolve().parents[2] / "examples" / "mine.py"
OWN = """
import torch

def spread(seen):
    return seen.domain_losses.var()

def decay(step):
    return 0.9**step

def network(shape, generator):
    layer = torch.nn.Linear(shape[0], 4, bias=False)
    torch.nn.init.normal_(layer.weight, generator=generator)
    return layer
"""
PLAN = """
datasets = ["Rings"]
algorithms = ["ERM", "Mine"]
test_envs = [[2]]
draws = 2
trials = 1
[settings]
steps = 12
evaluate_every = 5
hparams = {batch_size = 8}
loss.kind = "mine:smoothed"
head.kind = "LinearHead"
featurizer.kind = "own_parts:network"
optimizer = {kind = "mine:SignDescent", beta = 0.5}
lr_schedule.kind = "own_parts:decay"
lr_factors = {featurizer = {kind = "own_parts:decay"}, "head.bias" = 0.5}
own.Rings = {data = {kind = "mine:Rings", samples = 40}, environments = ["quiet", "noisy", "turned"]}
methods.Mine = {penalty.kind = "own_parts:spread", lr_factors.head = {kind = "own_parts:decay"}}
"""
PLUGINS = ("mine", "own_parts")


@pytest.fixture
def plan(tmp_path, monkeypatch):
    shutil.copy(MINE, tmp_path / "mine.py")
    (tmp_path / "own_parts.py").write_text(OWN)
    (tmp_path / "plan.toml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    return load("plan.toml", Plan, plugins=PLUGINS)


def test_a_plan_is_read_back_and_its_jobs_are_experiments(plan, tmp_path):
    (tmp_path / "again.toml").write_text(dumps(plan))
    assert load("again.toml", Plan, plugins=PLUGINS) == plan
    job = plan.jobs()[-1]
    experiment = job.experiment()
    assert experiment.optimizer.lr == job.hparams["lr"] != type(experiment.optimizer)().lr
    assert experiment.optimizer.beta == 0.5
    rates = {"model": 0.9**2, "featurizer": 0.9**4, "head.bias": 0.5 * 0.9**2}
    for one, factors in ((plan.jobs()[0], rates), (job, {"model": 0.9**2, "head": 0.9**4})):
        expected = {layer: one.hparams["lr"] * factor for layer, factor in factors.items()}
        assert one.experiment().learning_rates(2) == pytest.approx(expected), one.algorithm
    assert [domain.name for domain in experiment.data(0, None).training] == ["env0_in", "env1_in"]
    (tmp_path / "run.toml").write_text(dumps(experiment))
    assert load("run.toml", Experiment, plugins=PLUGINS) == experiment


@pytest.mark.slow
def test_interrupted_jobs_resume_to_the_same_results_and_tables_need_no_code(plan, tmp_path, monkeypatch, results_of):
    with sweep_folder(tmp_path / "sweep", plan, plugins=PLUGINS):
        assert all(attempt(job, Conditions(tmp_path / "sweep")).done for job in plan.jobs())
    real = execution.run

    def interrupted(*arguments, **options):
        for event in real(*arguments, **options):
            yield event
            if isinstance(event, Stepped) and event.state.step == 8:
                raise KeyboardInterrupt

    for job in plan.jobs():
        monkeypatch.setattr(execution, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attempt(job, Conditions(tmp_path / "other"))
        monkeypatch.setattr(execution, "run", real)
        assert attempt(job, Conditions(tmp_path / "other")).done
        assert job_folder(tmp_path / "other", job).exists()
    assert results_of(tmp_path / "other", plan.jobs()) == results_of(tmp_path / "sweep", plan.jobs())

    monkeypatch.chdir("/")
    assert planned_keys(tmp_path / "sweep") == tuple(job.key for job in plan.jobs())
    (table,) = dataset_tables(read_records(tmp_path / "sweep"), "training", planned_keys(tmp_path / "sweep"))
    assert table.columns == ("quiet", "noisy", "turned")
    assert [row.algorithm for row in table.rows] == ["ERM", "Mine"]
    assert all(row.cells[2].trials == 1 for row in table.rows)
