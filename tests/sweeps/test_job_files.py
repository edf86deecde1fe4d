import json

import pytest

from fishr.sweeps import execution
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.sweeps.job_files import open_times, read_times, time_line
from fishr.training import Stepped, journal, loop, runs


@pytest.fixture
def job(plan):
    return plan.jobs()[9]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that only training moves: step n takes n + 1 seconds, an evaluation 100 and a checkpoint 1000."""

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls):
            return cls.now

    def taking(function, seconds):
        def timed(*arguments, **options):
            Clock.now += seconds(*arguments)
            return function(*arguments, **options)

        return timed

    for module in (runs, journal):
        monkeypatch.setattr(module, "time", Clock)
    monkeypatch.setattr(loop, "advance", taking(loop.advance, lambda model, experiment, state, *_: state.step + 1))
    monkeypatch.setattr(loop, "evaluate", taking(loop.evaluate, lambda *_: 100))
    monkeypatch.setattr(journal, "save", taking(journal.save, lambda *_: 1000))
    return Clock


def step_times(conditions, job):
    text = (job_folder(conditions.folder, job) / "results.jsonl").read_text()
    return [json.loads(line)["step_time"] for line in text.splitlines()]


# The records are of the steps 0, 1 to 8, 9 to 16 and 17 to 19.
EXPECTED = [1.0, 5.5, 13.5, 19.0]


def test_it_is_the_mean_since_the_last_record_without_evaluations_and_checkpoints(job, tmp_path):
    conditions = Conditions(tmp_path)
    assert attempt(job, conditions).done
    assert step_times(conditions, job) == EXPECTED
    assert not (job_folder(tmp_path, job) / "times.jsonl").exists()


@pytest.mark.parametrize("stop", [1, 5, 9, 12, 20])
def test_an_interrupted_job_keeps_the_times_of_the_steps_before(job, tmp_path, monkeypatch, stop):
    real = execution.run

    def interrupted(*arguments, **options):
        for event in real(*arguments, **options):
            yield event
            if isinstance(event, Stepped) and event.state.step == stop:
                raise KeyboardInterrupt

    conditions = Conditions(tmp_path)
    monkeypatch.setattr(execution, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attempt(job, conditions)
    monkeypatch.setattr(execution, "run", real)
    assert attempt(job, conditions).done
    assert step_times(conditions, job) == EXPECTED


def test_a_line_that_a_kill_cut_short_is_left_out_and_a_repeated_step_counts_once(tmp_path):
    with open_times(tmp_path) as times:
        times.append(time_line(0, 1.0))
        times.append(time_line(1, 2.0))
    with (tmp_path / "times.jsonl").open("a") as file:
        file.write("[2")
    with open_times(tmp_path) as times:
        times.append(time_line(1, 5.0))
        times.append(time_line(1, 4.0))
        times.append(time_line(2, 3.0))
    assert read_times(tmp_path) == {0: 1.0, 1: 4.0, 2: 3.0}


def test_events_of_a_loop_without_a_folder_have_no_time(job):
    event = next(event for event in loop.train(job.experiment()) if isinstance(event, Stepped))
    assert event.seconds is None
