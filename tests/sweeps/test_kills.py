"""Kill -9 in earnest: what benchmarks/kill_and_sweep.py does to a larger sweep, a few times."""

import importlib
import json
from functools import partial
from pathlib import Path

import pytest

from fishr.sweeps.execution import Conditions
from fishr.sweeps.folder import read_plan
from fishr.sweeps.groups import attempt_together

ROOT = Path(__file__).resolve().parents[2]


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]


@pytest.fixture
def killing(monkeypatch):
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("no /proc, where processes are looked for")
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.kill_and_sweep")


def test_killed_and_resumed_to_the_same_results(killing, tmp_path):
    """The scheduler dies at the beginning, and once more after one of its workers; none is left behind."""
    plan, folder = killing.write_plan(tmp_path, draws=1, steps=50), tmp_path / "sweep"
    moments = ((0, "scheduler"), (2, "worker"))
    for jobs, victim in moments:
        enough = partial(lambda jobs: killing.done(folder) >= jobs, jobs)
        assert killing.killed(plan, folder, enough, victim, workers=1), (jobs, victim)
    jobs, whole = read_plan(folder).jobs(), Conditions(tmp_path / "whole")
    assert not all((folder / "jobs" / job.name / "done").exists() for job in jobs)
    for conditions in (Conditions(folder), whole):
        assert all(outcome.done for job in jobs for _, outcome in attempt_together([job], conditions))
    names = sorted(job.name for job in jobs)
    assert sorted(path.name for path in (folder / "jobs").iterdir()) == names
    for name in names:
        assert killing.files_of(folder / "jobs" / name) == killing.JOB_FILES
        found, expected = (killing.results(each / "jobs" / name) for each in (folder, whole.folder))
        assert found == expected


def test_a_difference_is_noticed(killing, tmp_path, monkeypatch):
    """The comparison itself can fail: by a number, a file too many, a job too few, a table."""

    def sweep(name, accuracy=0.5, seconds=1.0, jobs=("a", "b")):
        for job in jobs:
            folder = tmp_path / name / "jobs" / job
            folder.mkdir(parents=True)
            for file in killing.JOB_FILES:
                (folder / file).write_text("")
            line = {"env0_in_acc": accuracy, "step_time": seconds}
            (folder / "results.jsonl").write_text(json.dumps(line) + "\n")
        return tmp_path / name

    monkeypatch.setattr(killing, "tables", lambda folder: None)
    whole = sweep("whole")
    killing.compare(sweep("slower", seconds=2.0), whole)
    for name, changes in {"number": {"accuracy": 0.25}, "fewer": {"jobs": ("a",)}}.items():
        with pytest.raises(killing.Mismatch):
            killing.compare(sweep(name, **changes), whole)
    more = sweep("more")
    (more / "jobs" / "a" / ".checkpoint.pt.0123456789abcdef.fishr-partial").touch()
    with pytest.raises(killing.Mismatch):
        killing.compare(more, whole)
    monkeypatch.setattr(killing, "tables", str)
    with pytest.raises(killing.Mismatch, match="tables"):
        killing.compare(sweep("tables"), whole)
