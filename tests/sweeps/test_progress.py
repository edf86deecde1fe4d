import attrs
import pytest

from fishr.sweeps.execution import Conditions, Outcome, attempt
from fishr.sweeps.failures import write_failure
from fishr.sweeps.folder import job_folder, sweep_folder
from fishr.sweeps.memory import Memory
from fishr.sweeps.progress import progress


def test_states_are_read_from_files(tmp_path, plan):
    folder, jobs = tmp_path / "sweep", plan.jobs()
    assert [(row.algorithm, row.waiting) for row in progress(folder, jobs).rows] == [("ERM", 8), ("Fishr", 8)]
    with sweep_folder(folder, plan):
        outcomes = [attempt(job, Conditions(folder), Memory()) for job in jobs[:2]]
        write_failure(job_folder(folder, jobs[2]), "risk is nan", tries=1)
        job_folder(folder, jobs[3]).mkdir()
        job_folder(folder, jobs[9]).mkdir()
        found = progress(folder, jobs)
    erm, fishr = found.rows
    assert (erm.dataset, erm.algorithm) == ("PACS", "ERM")
    assert (erm.done, erm.running, erm.failed, erm.waiting, erm.jobs) == (2, 1, 1, 4, 8)
    assert (fishr.done, fishr.running, fishr.failed, fishr.waiting) == (0, 1, 0, 7)
    assert (found.total.done, found.total.running, found.total.failed, found.total.waiting) == (2, 2, 1, 11)
    assert erm.best == found.total.best == max(outcome.validation for outcome in outcomes)
    assert fishr.best is None
    mean = sum(outcome.seconds for outcome in outcomes) / 2
    assert erm.seconds == pytest.approx(5 * mean)
    assert found.total.seconds == pytest.approx(13 * mean)
    assert found.seconds_left == pytest.approx(13 * mean / 2)
    assert [(job, failure.message) for job, failure in found.failures] == [(jobs[2], "risk is nan")]
    # Nobody works on it any more.
    left = progress(folder, jobs)
    assert (left.total.running, left.total.waiting) == (0, 13)
    assert left.seconds_left == pytest.approx(13 * mean)


def test_what_was_seen_done_is_not_read_again(tmp_path, plan):
    jobs, seen = plan.jobs(), {}
    attempt(jobs[0], Conditions(tmp_path), Memory())
    assert progress(tmp_path, jobs, seen).total.done == 1
    assert list(seen) == [jobs[0].name]
    seen[jobs[0].name] = Outcome(seconds=1.0, validation=2.0)
    assert progress(tmp_path, jobs, seen).total.best == 2.0


def test_a_failure_of_a_job_that_is_done_does_not_count(tmp_path, plan):
    job = plan.jobs()[0]
    attempt(job, Conditions(tmp_path), Memory())
    write_failure(job_folder(tmp_path, job), "from before", tries=1)
    found = progress(tmp_path, [job])
    assert (found.total.done, found.total.failed, found.failures) == (1, 0, ())


def test_jobs_of_each_data_set_stand_apart(tmp_path, plan):
    jobs = attrs.evolve(plan, datasets=("PACS", "ColoredMNIST"), draws=1).jobs()
    rows = progress(tmp_path, jobs).rows
    assert [(row.dataset, row.algorithm, row.jobs) for row in rows] == [
        ("PACS", "ERM", 4),
        ("PACS", "Fishr", 4),
        ("ColoredMNIST", "ERM", 3),
        ("ColoredMNIST", "Fishr", 3),
    ]
