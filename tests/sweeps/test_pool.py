import os
import signal
import time
from contextlib import closing

import attrs
import pytest

from fishr.errors import RunFailed
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.sweeps import pool
from fishr.sweeps.execution import Conditions
from fishr.sweeps.folder import job_folder
from fishr.sweeps.groups import attempt_together, groups_of
from fishr.sweeps.job_events import JobDone, JobFailed, JobRetried
from fishr.sweeps.job_files import read_failure
from fishr.sweeps.pool import run_local, slots, start_worker

DEADLY = '''
import os, signal
from attrs import frozen

@frozen
class Deadly:
    """Kills its process, as a lack of memory does."""

    def init(self, problem):
        return None

    def __call__(self, seen, state, step):
        print("the last words", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

@frozen
class Broken(Deadly):
    """Fails as a library does."""

    def __call__(self, seen, state, step):
        return 1 / 0

@frozen
class Mortal(Deadly):
    """Kills its process once, in the middle of a run."""

    def __call__(self, seen, state, step):
        if step == 12 and not os.path.exists("died"):
            open("died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return seen.domain_losses.var(), state
'''


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sweep"


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """A module of penalties in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deadly_penalties.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    import deadly_penalties

    yield deadly_penalties
    import sys

    del sys.modules["deadly_penalties"]


@pytest.fixture
def alive(forked, monkeypatch):
    """The workers that were started and live."""
    started = []

    def start(*given):
        started.append(start_worker(*given))
        return started[-1]

    monkeypatch.setattr(pool, "start_worker", start)
    return lambda: [worker for worker in started if worker.process.poll() is None]


@pytest.mark.slow
def test_workers_leave_the_results_of_one_process_and_end_with_their_sweep(
    folder, plan, whole_together, results_of, alive
):
    with closing(run_local(plan.jobs(), Conditions(folder), slots(1, workers=2))) as running:
        events = [next(running) for _ in plan.jobs()[1:]]
        assert len(alive()) == 2
    assert alive() == []
    assert {type(event) for event in events} == {JobDone}
    jobs = [event.job for event in events]
    assert len({job.name for job in jobs}) == len(plan.jobs()) - 1
    assert results_of(folder, jobs) == {job.name: whole_together[job.name] for job in jobs}


@pytest.mark.slow
def test_a_worker_that_dies_takes_only_its_job_along(folder, plan, deadly, monkeypatch, forked):
    """Once more in another process, then it is given up; nor does one go on that a library has failed in."""
    started = []
    monkeypatch.setattr(pool, "start_worker", lambda *given: started.append(given) or start_worker(*given))
    methods = {"Deadly": OwnMethod(deadly.Deadly(), before=1.0), "Broken": OwnMethod(deadly.Broken(), before=1.0)}
    settings = attrs.evolve(plan.settings, methods=methods)
    own = attrs.evolve(plan, algorithms=("Deadly", "Broken", "ERM"), test_envs=((0,),), draws=1, settings=settings)
    events = list(run_local(own.jobs(), Conditions(folder), slots(1, workers=1), ("deadly_penalties",)))
    assert [(type(event), event.job.algorithm) for event in events] == [
        (JobRetried, "Deadly"),
        (JobFailed, "Deadly"),
        (JobFailed, "Broken"),
        (JobDone, "ERM"),
    ]
    assert len(started) == 4
    assert events[0].message == "its process died of SIGKILL"
    failed = events[1].failure
    assert (failed.message, failed.tries) == ("its process died of SIGKILL", 2)
    assert failed.log == ("the last words", "the last words")
    assert read_failure(job_folder(folder, own.jobs()[0])) == failed
    assert (events[2].failure.message, events[2].failure.tries) == ("ZeroDivisionError: division by zero", 1)


@pytest.mark.slow
def test_each_job_of_a_group_that_dies_is_run_once_more_alone(folder, plan, deadly, forked):
    methods = {"Deadly": OwnMethod(deadly.Deadly(), before=1.0), "Broken": OwnMethod(deadly.Broken(), before=1.0)}
    settings = attrs.evolve(plan.settings, methods=methods)
    own = attrs.evolve(plan, algorithms=("Deadly", "Broken", "ERM"), test_envs=((0,), (1,)), draws=1, settings=settings)
    events = list(run_local(own.jobs(), Conditions(folder), slots(1, workers=1), ("deadly_penalties",)))
    assert [(type(event), event.job.algorithm) for event in events[:4]] == [
        (JobRetried, "Deadly"),
        (JobRetried, "Deadly"),
        (JobFailed, "Deadly"),
        (JobFailed, "Deadly"),
    ]
    assert [event.failure.tries for event in events[2:4]] == [2, 2]
    assert sorted((type(event).__name__, event.job.algorithm) for event in events[4:]) == [
        *[("JobDone", "ERM")] * 2,
        *[("JobFailed", "Broken")] * 2,
    ]


@pytest.mark.slow
def test_workers_that_are_killed_change_nothing(folder, plan, results_of, alive):
    jobs = attrs.evolve(plan, algorithms=("ERM", "Fishr"), draws=2).jobs()
    events = []
    for event in run_local(jobs, Conditions(folder), slots(1, workers=2)):
        events.append(event)
        if len(events) == 1:
            # At any point: at the end of a group, in the middle of one, or without one.
            for worker in alive():
                os.kill(worker.process.pid, signal.SIGKILL)
    assert {event.job.name for event in events if isinstance(event, JobDone)} == {job.name for job in jobs}
    assert alive() == []
    whole = Conditions(folder.with_name("whole"))
    assert all(outcome.done for job in jobs for _, outcome in attempt_together([job], whole))
    assert results_of(folder, jobs) == results_of(whole.folder, jobs)


@pytest.mark.slow
def test_a_group_whose_worker_dies_in_the_middle_has_the_same_results(folder, plan, deadly, results_of):
    settings = attrs.evolve(plan.settings, methods={"Mortal": OwnMethod(deadly.Mortal(), before=1.0)})
    jobs = attrs.evolve(plan, algorithms=("Mortal",), settings=settings).jobs()
    events = list(run_local(jobs, Conditions(folder), slots(1, workers=1), ("deadly_penalties",)))
    assert [type(event) for event in events] == [JobRetried] * len(jobs) + [JobDone] * len(jobs)
    whole = Conditions(folder.with_name("whole"))
    assert all(outcome.done for job in jobs for _, outcome in attempt_together([job], whole))
    assert results_of(folder, jobs) == results_of(whole.folder, jobs)


@pytest.mark.slow
def test_a_worker_that_dies_idle_costs_its_next_group_no_try(folder, plan, alive):
    first, *_ = groups_of(plan.jobs(), Conditions(folder), workers=1)
    events = []
    for event in run_local(plan.jobs(), Conditions(folder), slots(1, workers=1)):
        events.append(event)
        if len(events) == len(first):
            (worker,) = alive()
            worker.process.kill()
            worker.process.wait()
    assert [type(event) for event in events] == [JobDone] * len(plan.jobs())


def test_workers_that_cannot_start_end_the_sweep(folder, plan):
    with pytest.raises(RunFailed, match="no worker could be started: its process ended with exit code") as caught:
        list(run_local(plan.jobs(), Conditions(folder), [{"PYTHONHOME": str(folder)}]))
    assert "\n" not in str(caught.value)
    assert not list(folder.rglob("failed.json"))


@pytest.mark.slow
def test_a_worker_ends_when_its_input_does(folder, forked):
    worker = start_worker(Conditions(folder), {}, ())
    assert worker.answer() == "ready"
    worker.process.stdin.close()
    deadline = time.monotonic() + 10
    while worker.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.process.poll() == 0
    worker.end()


def test_slots_fill_the_machine(monkeypatch):
    monkeypatch.setattr("fishr.sweeps.pool._cores", lambda: 8)
    assert len(slots(3)) == 2
    assert len(slots(9)) == 1
    assert len(slots(3, workers=5)) == 5
    assert {slot["OMP_NUM_THREADS"] for slot in slots(3)} == {"3"}
    assert "CUDA_VISIBLE_DEVICES" not in slots(3)[0]


@pytest.mark.parametrize(
    ("visible", "workers", "jobs_per_gpu", "expected"),
    [
        ("", None, 1, ["0", "1"]),
        ("", None, 2, ["0", "1", "0", "1"]),
        ("", 3, 1, ["0", "1", "0"]),
        ("5,GPU-7", None, 1, ["5", "GPU-7"]),
    ],
)
def test_slots_share_the_gpus(monkeypatch, visible, workers, jobs_per_gpu, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    found = slots(1, "auto", workers, jobs_per_gpu)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == expected
