"""One job of a sweep in its folder: from wherever it stopped to its results."""

import json
import os
import sys
import time
import traceback
from collections.abc import Generator, Iterable
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path

import attrs
import torch
from attrs import frozen

from fishr.configuration import dumps
from fishr.data.cached_features import FeatureEnvironments
from fishr.data.domains import Domains
from fishr.data.environments import Environments, HeldOut
from fishr.errors import InputError, RunFailed
from fishr.files import write_atomically
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.folder import job_folder, write_job
from fishr.sweeps.job_files import (
    DONE,
    FAILED,
    LOG,
    TIMES,
    Failure,
    Outcome,
    append_to,
    read_outcome,
    read_times,
    time_line,
)
from fishr.sweeps.job_results import best_validation, dump_lines, lines_after_divergence, result_lines, told_of
from fishr.sweeps.plan import Keep
from fishr.training.checkpoints import drop_optimizer
from fishr.training.compute import resolve_device
from fishr.training.experiment import Experiment
from fishr.training.loop import Finished, Stepped
from fishr.training.run_folder import CHECKPOINT, CONFIGURATION, METRICS, RESULT, existing_folder, is_in_use, new_folder
from fishr.training.runs import run
from fishr.training.state import initial_state
from fishr.training.step import NotFinite


@lru_cache(maxsize=1)
def _read_features(source: FeatureEnvironments, data_dir: Path | None) -> Environments:
    """Return the environments of a feature file, which no seed changes.

    Reading a file again costs a job on cached features more than its training; only the last file is kept.
    """
    return source(0, data_dir)


def with_cached_features(experiment: Experiment) -> Experiment:
    """Return the experiment, reading its feature file, if it has one, at most once a process."""
    data = experiment.data
    if not (isinstance(data, HeldOut) and isinstance(data.source, FeatureEnvironments)):
        return experiment
    source = data.source
    cached = attrs.evolve(data, source=lambda seed, data_dir: _read_features(source, data_dir))
    return attrs.evolve(experiment, data=cached)


@frozen
class JobDone:
    """A job has its results.

    Args:
        job: which.
        outcome: of it.

    Example:
        >>> JobDone(Job("PACS", "ERM", (0,), 0, 0), Outcome(seconds=1.5, validation=0.8)).outcome.done
        True
    """

    job: Job
    outcome: Outcome


@frozen
class JobRetried:
    """The process of a job died; the job goes on from its checkpoint in another one.

    Args:
        job: which.
        message: how it died.

    Example:
        >>> JobRetried(Job("PACS", "ERM", (0,), 0, 0), "died of SIGKILL").message
        'died of SIGKILL'
    """

    job: Job
    message: str


@frozen
class JobFailed:
    """A job was given up; the sweep goes on with the others.

    Args:
        job: which.
        failure: what its folder keeps of it.

    Example:
        >>> JobFailed(Job("PACS", "ERM", (0,), 0, 0), Failure("risk is nan", tries=1)).failure.tries
        1
    """

    job: Job
    failure: Failure


SweepEvent = JobDone | JobRetried | JobFailed


def check_input(jobs: Iterable[Job], data_dir: Path | None = None, device: str = "cpu") -> None:
    """Build each data set and each network of some jobs once, as their first job does.

    Args:
        jobs: to be run.
        data_dir: where data files lie.
        device: of the jobs.

    Raises:
        InputError: no such device, data that are missing or damaged or have other environments than the benchmark, or
            weights that are missing.

    Example:
        >>> from fishr.protocols.domainbed.settings import Settings
        >>> check_input([Job("PACS", "ERM", (0,), 0, 0, Settings(features={"PACS": "nowhere.h5"}))])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: PACS: data/nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    resolve_device(device)
    first = dict[str, Job]()
    for job in jobs:
        first.setdefault(job.dataset, job)
    for job in first.values():
        try:
            _check(job, data_dir)
        except InputError as error:
            raise InputError(f"{job.dataset}: {error}") from error


def _check(job: Job, data_dir: Path | None) -> None:
    experiment = job.experiment()
    domains = experiment.data(experiment.seed, data_dir)
    names = job.settings.benchmark(job.dataset).environments
    count = sum(domain.name.endswith("_out") for domain in domains.evaluation)
    if count != len(names):
        raise InputError(f"got {count} environments in the data, expected {len(names)}: {', '.join(names)}")
    # The network may need a file of weights.
    initial_state(experiment, domains)


RESULTS = "results.jsonl"
PATIENCE = 60.0  # seconds


@frozen
class Conditions:
    """Under which every job of a sweep runs.

    Args:
        folder: of the sweep.
        threads: of each job.
        keep: what a finished job keeps, as the plan says.
        data_dir: where data files lie.
        device: "cpu", "cuda" or "auto".

    Example:
        >>> Conditions(Path("sweep")).threads
        1
    """

    folder: Path
    threads: int = 1
    keep: Keep = "results"
    data_dir: Path | None = None
    device: str = "cpu"


def attempt(job: Job, conditions: Conditions) -> Outcome:
    """Run a job to its end, or to its failure; what it prints goes to its log.

    Args:
        job: any, begun before or not.
        conditions: of the sweep.

    Example:
        >>> import tempfile
        >>> from fishr.protocols.domainbed.settings import Settings
        >>> job = Job("PACS", "ERM", (0,), 0, 0, Settings(features={"PACS": "nowhere.h5"}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     attempt(job, Conditions(Path(folder))).message
        'data/nowhere.h5: no such file; give the path of a file that fishr wrote'
    """
    folder = job_folder(conditions.folder, job)
    try:
        _prepare(folder, job)
        with logged(folder / LOG):
            return _guarded(job, conditions)
    except (InputError, RunFailed) as error:
        return Outcome(message=_one_line(str(error)))


def _guarded(job: Job, conditions: Conditions) -> Outcome:
    try:
        return run_job(job, conditions)
    except (InputError, RunFailed) as error:
        print(error)
        return Outcome(message=_one_line(str(error)))
    # Whatever went wrong, one job must not end the others; its log says where.
    except Exception as error:
        traceback.print_exc()
        return Outcome(message=_one_line(f"{type(error).__name__}: {error}"), broken=True)


def run_job(job: Job, conditions: Conditions) -> Outcome:
    """Train a job from its last checkpoint, then write results.jsonl and, last of all, ``done``.

    Args:
        job: whose folder is there.
        conditions: of the sweep.

    Raises:
        InputError: data that cannot be used, or a folder that is damaged or in use.
        RunFailed: a file could not be written.
    """
    folder = job_folder(conditions.folder, job)
    finished = read_outcome(folder)
    if finished is not None:
        return finished
    torch.set_num_threads(conditions.threads)
    # On a cluster, a process that counts as dead may still be at work for a while.
    deadline = time.monotonic() + PATIENCE
    while is_in_use(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    (folder / FAILED).unlink(missing_ok=True)
    text = dumps(job.experiment())
    if (folder / RESULTS).exists():
        # It was interrupted between its results and ``done``, perhaps with its checkpoint dropped.
        with existing_folder(folder, text):
            return _conclude(folder, conditions.keep)
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    experiment = with_cached_features(job.experiment())
    outcome: Outcome | None = None
    try:
        events = run(
            experiment,
            folder,
            experiment_text=text,
            data_dir=conditions.data_dir,
            device=conditions.device,
            resume=True,
        )
        with append_to(folder) as times:
            # The run's folder is locked until its last event is consumed.
            for event in events:
                if isinstance(event, Stepped) and event.seconds is not None:
                    times.append(time_line(event.record.step, event.seconds))
                elif isinstance(event, Finished):
                    _write_results(folder, job, conditions.threads)
                    outcome = _conclude(folder, conditions.keep)
    except NotFinite as failure:
        print(failure)
        with existing_folder(folder, text):
            domains = experiment.data(experiment.seed, conditions.data_dir)
            _write_results(folder, job, conditions.threads, domains)
            outcome = _conclude(folder, conditions.keep)
    assert outcome is not None
    return outcome


@contextmanager
def logged(path: Path) -> Generator[None]:
    r"""Send whatever this process prints, libraries in C included, to the end of a file while the context lasts.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with logged(Path(folder, "log.txt")):
        ...         _ = os.system("echo from another language")
        ...     Path(folder, "log.txt").read_text()
        'from another language\n'
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        # Python's own streams may lead elsewhere than the process's.
        with path.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield
    finally:
        for copy, descriptor in zip(kept, (1, 2), strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _prepare(folder: Path, job: Job) -> None:
    """Make the job's folder a run folder that has begun, so that its run always resumes."""
    text = dumps(job.experiment())
    if not folder.exists():
        try:
            with new_folder(folder, text):
                pass
        except InputError:
            # Another process may have made it in between.
            if not (folder / CONFIGURATION).exists():
                raise
    if not (folder / CONFIGURATION).exists():
        write_atomically(folder / CONFIGURATION, text.encode())
    write_job(folder, job)


def _write_results(folder: Path, job: Job, threads: int, diverged_on: Domains | None = None) -> None:
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else 0.0
    metrics = (folder / METRICS).read_text().splitlines()
    told = told_of(job, threads=threads, mem_gb=memory)
    lines = list(result_lines(job, metrics, read_times(folder), told))
    if diverged_on is not None:
        lines += lines_after_divergence(job, lines, diverged_on, told)
    write_atomically(folder / RESULTS, dump_lines(lines))


def _conclude(folder: Path, keep: Keep) -> Outcome:
    """Drop what a job with results does not keep, and say last of all that it is done."""
    result = json.loads((folder / RESULT).read_bytes())
    lines = map(json.loads, (folder / RESULTS).read_text().splitlines())
    outcome = Outcome(float(result["seconds"]), best_validation(lines), result.get("step"))
    if keep == "results":
        for name in (CHECKPOINT, METRICS):
            (folder / name).unlink(missing_ok=True)
    elif (folder / CHECKPOINT).exists():
        drop_optimizer(folder / CHECKPOINT)
    (folder / TIMES).unlink(missing_ok=True)
    done = {"seconds": outcome.seconds, "validation": outcome.validation, "diverged": outcome.diverged}
    write_atomically(folder / DONE, json.dumps(done).encode())
    return outcome


def _one_line(text: str) -> str:
    return " ".join(text.split())
