"""Jobs that are trained together, against each trained alone."""

from threading import current_thread, main_thread

import attrs
import pytest

from fishr.sweeps import execution, groups
from fishr.sweeps.execution import Conditions
from fishr.sweeps.folder import job_folder
from fishr.sweeps.groups import attempt_together, groups_of
from fishr.sweeps.job_files import Outcome, read_outcome
from fishr.training import Stepped
from fishr.training.head_group import HeadGroup


@pytest.fixture
def conditions(tmp_path):
    return Conditions(tmp_path / "sweep")


@pytest.fixture
def programs(monkeypatch):
    """The number of heads of each step that was computed together."""
    found, step = [], HeadGroup._step

    def counted(group, gradients, stack, generators):
        found.append(len(stack.heads))
        return step(group, gradients, stack, generators)

    monkeypatch.setattr(HeadGroup, "_step", counted)
    return found


def close(results, whole):
    assert results.keys() <= whole.keys()
    for name, lines in results.items():
        for line, other in zip(lines, whole[name], strict=True):
            numbers = {key: value for key, value in line.items() if isinstance(value, float)}
            assert numbers == pytest.approx({key: other[key] for key in numbers}, rel=1e-5)
            assert {k: v for k, v in line.items() if k not in numbers} == {
                k: other[k] for k in line if k not in numbers
            }


def test_groups_are_jobs_that_differ_in_seeds_and_numbers_alone(plan, conditions):
    found = groups_of(plan.jobs(), conditions, workers=1)
    assert [sorted((job.algorithm, job.hparams_seed) for job in group) for group in found] == [
        [(algorithm, draw) for draw in (0, 1) for _ in range(4)] for algorithm in ("ERM", "Fishr")
    ]
    assert sorted(job.name for group in found for job in group) == sorted(job.name for job in plan.jobs())
    assert {len(group) for group in groups_of(plan.jobs(), attrs.evolve(conditions, together=False), 1)} == {1}
    assert {len(group) for group in groups_of(plan.jobs(), conditions, workers=8)} == {2}
    assert groups_of((), conditions, workers=2) == ()


def test_jobs_of_other_data_sets_or_descents_are_alone(plan, conditions):
    own = attrs.evolve(plan, algorithms=("SAM", "ERM"), draws=1)
    assert [len(group) for group in groups_of(own.jobs(), conditions, 1)] == [1, 1, 1, 1, 4]
    images = attrs.evolve(own, settings=attrs.evolve(plan.settings, features={}))
    assert {len(group) for group in groups_of(images.jobs(), conditions, 1)} == {1}


def test_jobs_trained_together_have_the_results_of_each(plan, conditions, whole, results_of, programs):
    for group in groups_of(plan.jobs(), conditions, workers=1):
        for job, outcome in attempt_together(group, conditions):
            assert outcome == read_outcome(job_folder(conditions.folder, job))
    close(results_of(conditions.folder, plan.jobs()), whole)
    assert programs == [8] * 40


def test_jobs_of_a_group_write_at_once_and_start_one_by_one(plan, conditions, monkeypatch):
    threads = {}

    def recorded(name, function):
        def call(*given, **options):
            threads.setdefault(name, []).append(current_thread() is main_thread())
            return function(*given, **options)

        monkeypatch.setattr(execution, name, call)

    for name in ("write_job", "with_cached_features", "conclude"):
        recorded(name, getattr(execution, name))
    jobs = [job for job in plan.jobs() if job.algorithm == "ERM"]
    assert all(outcome.done for _, outcome in attempt_together(jobs, conditions))
    # The first of a group does its own.
    assert threads["write_job"][: len(jobs)].count(True) == threads["conclude"].count(True) == 1
    assert all(threads["with_cached_features"])


def test_a_group_that_is_killed_goes_on_to_the_same_bits(plan, conditions, results_of, tmp_path, monkeypatch):
    jobs = [job for job in plan.jobs() if job.algorithm == "Fishr"][::2]
    list(attempt_together(jobs, conditions))
    killed, real, count = Conditions(tmp_path / "killed"), execution.run, []

    def interrupted(*arguments, **options):
        for event in real(*arguments, **options):
            yield event
            count.append(isinstance(event, Stepped))
            if sum(count) == 50:
                raise KeyboardInterrupt

    monkeypatch.setattr(execution, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(attempt_together(jobs, killed))
    monkeypatch.setattr(execution, "run", real)
    assert all(outcome.done for _, outcome in attempt_together(jobs, killed))
    assert results_of(killed.folder, jobs) == results_of(conditions.folder, jobs)


def test_one_that_fails_leaves_the_others(plan, conditions, whole, results_of):
    jobs = groups_of(plan.jobs(), conditions, workers=1)[1]
    folder = job_folder(conditions.folder, jobs[1])
    folder.parent.mkdir(parents=True)
    folder.touch()
    outcomes = {job.name: outcome for job, outcome in attempt_together(jobs, conditions)}
    assert "could not be made" in outcomes.pop(jobs[1].name).message
    assert all(outcome.done for outcome in outcomes.values())
    close(results_of(conditions.folder, [job for job in jobs if job is not jobs[1]]), whole)


def test_a_failure_is_in_the_log_of_its_job(plan, conditions, monkeypatch):
    jobs, real = groups_of(plan.jobs(), conditions, workers=1)[0], execution.run

    def failing(experiment, folder, **options):
        if folder.name == jobs[2].name:
            raise execution.RunFailed("step 3: risk is nan")
        return real(experiment, folder, **options)

    monkeypatch.setattr(execution, "run", failing)
    outcomes = {job.name: outcome for job, outcome in attempt_together(jobs, conditions)}
    assert outcomes[jobs[2].name] == Outcome(message="step 3: risk is nan")
    assert "step 3: risk is nan" in (job_folder(conditions.folder, jobs[2]) / "log.txt").read_text()
    assert "step 3" not in (job_folder(conditions.folder, jobs[0]) / "log.txt").read_text()


def test_a_job_that_breaks_in_its_group_is_run_once_more_alone(plan, conditions, monkeypatch, whole, results_of):
    jobs, tried = groups_of(plan.jobs(), conditions, workers=1)[1], []

    def working(job, conditions, by=None):
        tried.append((job.name, by is None))
        if by is not None and job is jobs[0]:
            return (yield from failing())
        return (yield from execution.working(job, conditions, by))

    def failing():
        return Outcome(message="KeyError: 3", broken=True)
        yield

    monkeypatch.setattr(groups, "working", working)
    outcomes = {job.name: outcome for job, outcome in attempt_together(jobs, conditions)}
    assert all(outcome.done for outcome in outcomes.values())
    assert {job.name for job in jobs} == outcomes.keys()
    close(results_of(conditions.folder, jobs), whole)
