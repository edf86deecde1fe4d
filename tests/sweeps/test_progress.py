import attrs
import pytest

from fishr.errors import InputError
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder, sweep_folder, write_job
from fishr.sweeps.job_files import Outcome, write_failure
from fishr.sweeps.progress import FailedJob, FilesRead, progress


def keys_of(jobs):
    return [job.key for job in jobs]


def test_states_are_read_from_files(tmp_path, plan):
    folder, jobs = tmp_path / "sweep", plan.jobs()
    keys = keys_of(jobs)
    assert [(row.algorithm, row.waiting) for row in progress(folder, keys).rows] == [("ERM", 8), ("Fishr", 8)]
    with sweep_folder(folder, plan):
        outcomes = [attempt(job, Conditions(folder)) for job in jobs[:2]]
        for job in (jobs[2], jobs[3], jobs[9]):
            write_job(job_folder(folder, job), job)
        failure = write_failure(job_folder(folder, jobs[2]), "risk is nan", tries=1)
        # It has only begun to be made.
        (folder / "jobs" / f".{jobs[10].name}.tmp-1").mkdir()
        job_folder(folder, jobs[11]).mkdir()
        found = progress(folder, keys)
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
    assert found.failures == (FailedJob(jobs[2].key, jobs[2].name, failure),)
    # Nobody works on it any more.
    left = progress(folder, keys)
    assert (left.total.running, left.total.waiting) == (0, 13)
    assert left.seconds_left == pytest.approx(13 * mean)


def test_what_was_seen_done_is_not_read_again(tmp_path, plan):
    jobs, seen = plan.jobs(), FilesRead()
    attempt(jobs[0], Conditions(tmp_path))
    assert progress(tmp_path, keys_of(jobs), seen).total.done == 1
    assert list(seen.outcomes) == [jobs[0].key]
    assert seen.keys == {jobs[0].name: jobs[0].key}
    seen.outcomes[jobs[0].key] = Outcome(seconds=1.0, validation=2.0)
    (job_folder(tmp_path, jobs[0]) / "job.toml").unlink()
    assert progress(tmp_path, keys_of(jobs), seen).total.best == 2.0


def test_a_failure_of_a_job_that_is_done_does_not_count(tmp_path, plan):
    job = plan.jobs()[0]
    attempt(job, Conditions(tmp_path))
    write_failure(job_folder(tmp_path, job), "from before", tries=1)
    found = progress(tmp_path, [job.key])
    assert (found.total.done, found.total.failed, found.failures) == (1, 0, ())


@pytest.mark.parametrize("text", ["", "dataset = 3", 'dataset = "PACS"\ntest_envs = 5', "\0"])
def test_a_damaged_job_is_named(tmp_path, plan, text):
    job = plan.jobs()[0]
    write_job(job_folder(tmp_path, job), job)
    (job_folder(tmp_path, job) / "job.toml").write_text(text)
    with pytest.raises(InputError, match=r"job.toml: damaged; remove the folder of this job"):
        progress(tmp_path, [job.key])


def test_jobs_of_each_data_set_stand_apart(tmp_path, plan):
    jobs = attrs.evolve(plan, datasets=("PACS", "ColoredMNIST"), draws=1).jobs()
    rows = progress(tmp_path, keys_of(jobs)).rows
    assert [(row.dataset, row.algorithm, row.jobs) for row in rows] == [
        ("PACS", "ERM", 4),
        ("PACS", "Fishr", 4),
        ("ColoredMNIST", "ERM", 3),
        ("ColoredMNIST", "Fishr", 3),
    ]
