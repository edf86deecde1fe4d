"""One job in its folder: results, interruptions, failures."""

import json
import os
import shutil
from pathlib import Path
from typing import ClassVar

import attrs
import pytest
import torch
from attrs import frozen

from fishr.data.cached_features import FeatureEnvironments
from fishr.protocols import colored_digits
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.sweeps import execution
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.sweeps.job_files import Failure, Outcome, read_failure, read_outcome, write_failure
from fishr.training import Evaluated, Finished, Stepped, train
from fishr.training.checkpoints import load


@pytest.fixture
def job(plan):
    return plan.jobs()[9]


@pytest.fixture
def conditions(tmp_path):
    return Conditions(tmp_path / "sweep")


def lines_of(conditions, job):
    return (job_folder(conditions.folder, job) / "results.jsonl").read_text().splitlines()


def test_results_are_those_of_the_experiment(job, conditions):
    outcome = attempt(job, conditions)
    lines = [json.loads(line) for line in lines_of(conditions, job)]
    events = list(train(job.experiment()))
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    losses = [event.record.loss for event in events if isinstance(event, Stepped)]
    assert [line["step"] for line in lines] == [0, 8, 16, 19] == [event.step - 1 for event in evaluated]
    assert len(lines) == job.evaluations
    for line, event in zip(lines, evaluated, strict=True):
        assert {name: line[f"{name}_acc"] for name in (s.name for s in event.scores)} == {
            score.name: score.accuracy for score in event.scores
        }
    assert [line["loss"] for line in lines] == [
        pytest.approx(sum(part) / len(part), rel=1e-12) for part in (losses[:1], losses[1:9], losses[9:17], losses[17:])
    ]
    trained = [f"env{i}_out_acc" for i in range(4) if i not in job.test_envs]
    assert outcome.validation == pytest.approx(max(sum(line[name] for name in trained) / 3 for line in lines))
    assert read_outcome(job_folder(conditions.folder, job)) == outcome


def test_what_is_done_is_never_run_again(job, conditions, monkeypatch):
    attempt(job, conditions)
    folder = job_folder(conditions.folder, job)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "log.txt"}
    monkeypatch.setattr(execution, "run", None)
    assert attempt(job, conditions).done
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "log.txt"} == before


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["step 3", "step 12", "step 20", "finished"])
def test_an_interrupted_job_goes_on_to_the_same_results(job, conditions, whole, results_of, monkeypatch, stop):
    real = execution.run

    def interrupted(*arguments, **options):
        for event in real(*arguments, **options):
            if isinstance(event, Finished) and stop == "finished":
                raise KeyboardInterrupt
            yield event
            if isinstance(event, Stepped) and stop == f"step {event.state.step}":
                raise KeyboardInterrupt

    monkeypatch.setattr(execution, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attempt(job, conditions)
    assert read_outcome(job_folder(conditions.folder, job)) is None
    monkeypatch.setattr(execution, "run", real)
    assert attempt(job, conditions).done
    assert results_of(conditions.folder, [job]) == {job.name: whole[job.name]}


@pytest.mark.parametrize("left", ["nothing but the folder", "a failure", "no job.toml"])
def test_a_job_begins_in_whatever_a_kill_left(job, conditions, whole, results_of, left):
    folder = job_folder(conditions.folder, job)
    if left == "no job.toml":
        attempt(job, conditions)
        for path in folder.iterdir():
            if path.name != "config.toml":
                path.unlink()
    elif left == "a failure":
        write_failure(folder, "its process died of SIGKILL", tries=2)
    else:
        folder.mkdir(parents=True)
    assert attempt(job, conditions).done
    assert read_failure(folder) is None
    assert results_of(conditions.folder, [job]) == {job.name: whole[job.name]}
    assert {path.name for path in folder.iterdir()} == {
        *("config.toml", "done", "job.toml", "log.txt", "result.json", "results.jsonl"),
    }


def test_a_folder_that_cannot_be_made_is_one_line(job, conditions):
    conditions.folder.mkdir()
    (conditions.folder / "jobs").touch()
    assert f"{job.name}: could not be made (" in attempt(job, conditions).message


def test_weights_are_kept_only_where_they_are_wanted(job, conditions):
    """And never the optimizer's memory."""
    folder = job_folder(conditions.folder, job)
    sizes, real = [], execution.run

    def watched(*arguments, **options):
        for event in real(*arguments, **options):
            if isinstance(event, Finished):
                sizes.append((folder / "checkpoint.pt").stat().st_size)
            yield event

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(execution, "run", watched)
        assert attempt(job, conditions).done
        assert not (folder / "checkpoint.pt").exists()
        assert not (folder / "metrics.jsonl").exists()
        lines = lines_of(conditions, job)
        assert len(lines) == job.evaluations
        shutil.rmtree(folder)
        assert attempt(job, attrs.evolve(conditions, keep="weights")).done
    assert len(lines_of(conditions, job)) == len(lines)
    kept = load(folder / "checkpoint.pt").state
    *_, last = train(job.experiment())
    assert {name: tensor.tolist() for name, tensor in kept.parameters.items()} == {
        name: tensor.tolist() for name, tensor in last.state.parameters.items()
    }
    assert kept.optimizer == {"steps": (), "moments": {}}
    assert (folder / "metrics.jsonl").exists()
    assert (folder / "checkpoint.pt").stat().st_size < sizes[-1]


@pytest.mark.parametrize("keep", ["results", "weights"])
@pytest.mark.parametrize("stop", ["before dropping", "after dropping"])
def test_a_kill_between_results_and_done_loses_nothing(job, conditions, monkeypatch, whole, results_of, keep, stop):
    conditions, folder = attrs.evolve(conditions, keep=keep), job_folder(conditions.folder, job)

    def killed(*arguments):
        raise KeyboardInterrupt

    if stop == "before dropping":
        monkeypatch.setattr(execution, "conclude", killed)
    else:
        monkeypatch.setattr(execution, "write_outcome", killed)
    with pytest.raises(KeyboardInterrupt):
        attempt(job, conditions)
    monkeypatch.undo()
    monkeypatch.setattr(execution, "run", None)
    outcome = attempt(job, conditions)
    assert (outcome.done, read_outcome(folder)) == (True, outcome)
    assert results_of(conditions.folder, [job]) == {job.name: whole[job.name]}
    assert (folder / "checkpoint.pt").exists() == (keep == "weights")


def test_failures_are_told_and_logged(job, conditions, monkeypatch, capfd):
    def failing(*arguments, **options):
        print("from Python")
        os.system("echo from a library")
        raise failure

    monkeypatch.setattr(execution, "run", failing)
    failure = execution.RunFailed("step 3: risk\nis nan")
    assert attempt(job, conditions) == Outcome(message="step 3: risk is nan")
    log = (job_folder(conditions.folder, job) / "log.txt").read_text()
    assert log == "from Python\nfrom a library\nstep 3: risk\nis nan\n"
    failure = ZeroDivisionError("division by zero")
    assert attempt(job, conditions) == Outcome(message="ZeroDivisionError: division by zero", broken=True)
    assert "Traceback" in (job_folder(conditions.folder, job) / "log.txt").read_text()
    print("after")
    assert capfd.readouterr() == ("after\n", "")


def test_a_folder_in_use_is_waited_for(job, conditions, monkeypatch):
    """As when a node of a cluster counts as lost but still computes for a while."""
    from fishr.locks import LOCK, locked

    conditions = attrs.evolve(conditions, keep="weights")
    folder = job_folder(conditions.folder, job)
    attempt(job, conditions)
    (folder / "done").unlink()
    (folder / "results.jsonl").unlink()
    waits, lock = [], locked(folder / LOCK, folder, "busy")
    lock.__enter__()
    monkeypatch.setattr(execution.time, "sleep", lambda s: waits.append(s) or lock.__exit__(None, None, None))
    assert attempt(job, conditions).done
    assert len(waits) == 1


@pytest.mark.slow
def test_a_folder_that_stays_in_use_is_a_failure(job, conditions, monkeypatch):
    from fishr.locks import LOCK, locked

    attempt(job, conditions)
    folder = job_folder(conditions.folder, job)
    (folder / "done").unlink()
    monkeypatch.setattr(execution, "PATIENCE", 0.0)
    with locked(folder / LOCK, folder, "busy"):
        assert "another process is training in it" in attempt(job, conditions).message


@pytest.mark.slow
def test_a_feature_file_is_read_once(plan, conditions, monkeypatch, whole, results_of):
    reads, read = [], FeatureEnvironments.__call__
    monkeypatch.setattr(FeatureEnvironments, "__call__", lambda *given: reads.append(given[0]) or read(*given))
    execution._read_features.cache_clear()
    for job in plan.jobs():
        assert attempt(job, conditions).done
    assert len(reads) == 1
    assert results_of(conditions.folder, plan.jobs()) == whole


@pytest.mark.slow
def test_only_the_last_feature_files_are_kept(job, feature_file, tmp_path):
    for rows in (12, 16, 20):
        path = feature_file(tmp_path / f"{rows}.h5", rows=rows)
        settings = attrs.evolve(job.settings, features={"PACS": str(path)})
        experiment = execution.with_cached_features(attrs.evolve(job, settings=settings).experiment())
        assert sum(len(domain.labels) for domain in experiment.data(0, None).evaluation[-4:]) == 4 * (rows // 5)
    assert execution._read_features.cache_info().currsize == 2
    assert execution.with_cached_features(colored_digits()) == colored_digits()


def test_jobs_of_a_group_share_their_splits(job, feature_file, tmp_path):
    settings = attrs.evolve(job.settings, features={"PACS": str(feature_file(tmp_path / "features.h5", rows=12))})
    jobs = [attrs.evolve(job, settings=settings, hparams_seed=h, trial_seed=t) for h, t in ((1, 0), (2, 0), (2, 1))]
    shared = [execution.with_cached_features(one.experiment(), torch.device("cpu")).data(3, None) for one in jobs]
    assert shared[0] is shared[1]
    for one, domains in zip(jobs, shared, strict=True):
        alone = execution.with_cached_features(one.experiment()).data(3, None)
        for (domain, split), (expected, of_expected) in zip(domains.by_split, alone.by_split, strict=True):
            assert (domain.name, split) == (expected.name, of_expected)
            assert torch.equal(domain.inputs.read(range(len(domain.labels))), expected.inputs)


@pytest.mark.parametrize("shared", [None, torch.device("cpu")])
def test_another_file_under_the_same_name_is_read(job, feature_file, tmp_path, monkeypatch, shared):
    settings = attrs.evolve(job.settings, features={"PACS": "features.h5"})
    rows = list[int]()
    # In another folder of the same relative name, and in place of the first one.
    for folder, count in (("one", 12), ("two", 16), ("two", 20)):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        (tmp_path / folder / "features.h5").unlink(missing_ok=True)
        feature_file(tmp_path / folder / "features.h5", rows=count)
        experiment = execution.with_cached_features(attrs.evolve(job, settings=settings).experiment(), shared)
        domains = experiment.data(3, Path())
        rows.append(sum(len(domain.labels) for domain, _ in domains.by_split))
    assert rows == [4 * 12, 4 * 16, 4 * 20]


def test_the_end_of_a_log_is_kept(tmp_path):
    (tmp_path / "log.txt").write_text("x" * 100_000 + "\n" + "".join(f"line {i}\n" for i in range(100)))
    failure = write_failure(tmp_path, "out of memory", tries=2)
    assert failure.log == tuple(f"line {i}" for i in range(80, 100))
    assert read_failure(tmp_path) == failure == Failure("out of memory", 2, failure.log)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "{}"])
@pytest.mark.parametrize(("name", "read"), [("failed.json", read_failure), ("done", read_outcome)])
def test_damaged_files_are_named(tmp_path, name, read, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(execution.InputError, match=f"{name}: not what fishr wrote; remove it"):
        read(tmp_path)


def test_missing_data_is_one_line(conditions, plan):
    job = plan.jobs()[0]
    settings = attrs.evolve(job.settings, features={"PACS": "nowhere.h5"})
    outcome = attempt(Job("PACS", "ERM", (0,), 0, 0, settings), conditions)
    assert outcome == Outcome(
        message="data/nowhere.h5: no such file; write it with fishr sweep features PLAN -o data/nowhere.h5"
    )


@frozen
class Apart:
    """A penalty of one's own: NaN on a single domain, and it says so."""

    least_domains: ClassVar[int] = 2

    def init(self, problem):
        return ()

    def __call__(self, seen, state, step):
        return seen.domain_losses.var(), state


def test_a_method_of_ones_own_trains_wherever_a_single_domain_is_left(plan, conditions):
    settings = attrs.evolve(plan.settings, methods={"Apart": OwnMethod(Apart(), before=1.0)})
    for envs in ((0, 1), (0, 1, 2)):
        job = Job("PACS", "Apart", envs, hparams_seed=0, trial_seed=0, settings=settings)
        assert attempt(job, conditions).done
