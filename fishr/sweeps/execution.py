"""One job of a sweep in its folder: from wherever it stopped to its results."""

import json
import os
import sys
import time
import traceback
from collections.abc import Generator
from contextlib import ExitStack, closing, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from attrs import frozen

from fishr.configuration import dumps, unstructure
from fishr.configuration.families import find_logger
from fishr.configuration.toml import parse_toml
from fishr.data.cached_features import FeatureEnvironments
from fishr.data.domains import Domains
from fishr.data.environments import Environments, HeldOut
from fishr.data.shared_rows import in_one_table
from fishr.errors import InputError, RunFailed, one_line
from fishr.files import write_atomically
from fishr.logs import with_logs
from fishr.paths import in_data_folder
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.folder import job_folder, write_job
from fishr.sweeps.job_files import (
    FAILED,
    LOG,
    TIMES,
    Outcome,
    open_times,
    read_outcome,
    read_times,
    time_line,
    write_outcome,
)
from fishr.sweeps.job_results import best_validation, common_entries, dump_lines, lines_after_divergence, result_lines
from fishr.sweeps.plan import Keep
from fishr.training.checkpoints import drop_optimizer
from fishr.training.compute import resolve_device
from fishr.training.experiment import Experiment
from fishr.training.loop import Event, Finished, StepFunctions, Stepped
from fishr.training.run_folder import CHECKPOINT, CONFIGURATION, METRICS, RESULT, LineFile, existing_folder, is_in_use
from fishr.training.runs import run
from fishr.training.step import NotFinite

RESULTS = "results.jsonl"
PATIENCE = 60.0  # seconds
CHECKPOINT_SECONDS = 10.0  # that a kill loses of a group at most


@frozen
class Conditions:
    """Folder, threads, kept files, data folder and device, the same for every job of a sweep."""

    folder: Path
    threads: int = 1
    keep: Keep = "results"
    data_dir: Path | None = None
    device: str = "cpu"
    together: bool = True  # whether jobs that can be are trained together
    logs: tuple[str, ...] = ()  # words or ``module:Name`` of loggers
    plugins: tuple[str, ...] = ()  # modules that these may be in


def attempt(job: Job, conditions: Conditions) -> Outcome:
    """Run a job to its end, or to its failure; its output goes to its log."""
    running = working(job, conditions)
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value


def working(
    job: Job, conditions: Conditions, by: StepFunctions | None = None
) -> Generator[Event | None, None, Outcome]:
    """Yield None when a job's folder is written, then the events of its run, and return its outcome."""
    # Without `by`, the job has the process for itself, and all output goes to its log. With it, the job is one of a
    # group: its inputs are rows of the table of all, and it logs how it fails.
    folder = job_folder(conditions.folder, job)
    try:
        text = dumps(job.experiment())
        # A run folder that has begun always resumes.
        write_job(folder, job)
        if not (folder / CONFIGURATION).exists():
            write_atomically(folder / CONFIGURATION, text.encode())
        yield None
        with logged(folder / LOG) if by is None else nullcontext():
            try:
                return (yield from _run_job(folder, job, text, conditions, by))
            except (InputError, RunFailed) as error:
                with (folder / LOG).open("a") as log:
                    print(error, file=log)
                raise
            # Whatever went wrong, one job must not end the others; its log has the traceback.
            except Exception as error:
                with (folder / LOG).open("a") as log:
                    traceback.print_exc(file=log)
                return Outcome(message=one_line(f"{type(error).__name__}: {error}"), broken=True)
    except (InputError, RunFailed) as error:
        return Outcome(message=one_line(str(error)))


def _run_job(
    folder: Path, job: Job, text: str, conditions: Conditions, by: StepFunctions | None
) -> Generator[Event, None, Outcome]:
    """Train a job from its last checkpoint, then write results.jsonl and, last of all, ``done``."""
    finished = read_outcome(folder)
    if finished is not None:
        return finished
    torch.set_num_threads(conditions.threads)
    # On a cluster, a process that counts as dead may still run for a while.
    deadline = time.monotonic() + PATIENCE
    while is_in_use(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    (folder / FAILED).unlink(missing_ok=True)
    # A job that was interrupted between its results and ``done`` may have dropped its checkpoint.
    if not (folder / RESULTS).exists():
        yield from _train(folder, job, text, conditions, by)
    with existing_folder(folder, text):
        return conclude(folder, conditions.keep)


def _train(folder: Path, job: Job, text: str, conditions: Conditions, by: StepFunctions | None) -> Generator[Event]:
    """Train a job from its last checkpoint to its results.jsonl."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    data_dir, device = conditions.data_dir, resolve_device(conditions.device)
    experiment = with_cached_features(job.experiment(), None if by is None else device)
    loggers = [find_logger(name, conditions.plugins) for name in conditions.logs]
    options: Any = {"data_dir": data_dir, "device": conditions.device, "resume": True, "by": by}
    options["checkpoint_seconds"] = 0.0 if by is None else CHECKPOINT_SECONDS
    try:
        events = run(experiment, folder, experiment_text=text, **options)
        events = recorded(events, folder, job, conditions.threads)
        yield from with_logs(events, loggers, folder, _logged_settings(job, text)) if loggers else events
    except NotFinite as failure:
        print(failure)
        with existing_folder(folder, text):
            _write_results(folder, job, conditions.threads, experiment.data(experiment.seed, data_dir))


def _logged_settings(job: Job, text: str) -> dict[str, Any]:
    """Return the configuration of a job's run, and what is the job's own."""
    own = {name: value for name, value in unstructure(job).items() if name != "settings"}
    return {**parse_toml(text), "job": own}


def recorded(events: Generator[Event], folder: Path, job: Job, threads: int) -> Generator[Event]:
    """Yield the events of a job's run; write job.toml, the times of its steps and, at its end, results.jsonl."""
    # The run's folder is there from its first event, and locked until its last one is consumed.
    with closing(events), ExitStack() as stack:
        times: LineFile | None = None
        for event in events:
            if times is None:
                write_job(folder, job)
                times = stack.enter_context(open_times(folder))
            if isinstance(event, Stepped) and event.seconds is not None:
                times.append(time_line(event.record.step, event.seconds))
            elif isinstance(event, Finished):
                _write_results(folder, job, threads)
            yield event


def with_cached_features(experiment: Experiment, shared: torch.device | None = None) -> Experiment:
    """Return the experiment, reading a feature file once; ``shared``: the device of one table of all features."""
    data = experiment.data
    if not (isinstance(data, HeldOut) and isinstance(data.source, FeatureEnvironments)):
        return experiment
    source = data.source
    if shared is not None:
        return attrs.evolve(
            experiment, data=lambda seed, data_dir: _split(data, data_dir, shared, _file(source, data_dir))
        )
    cached = attrs.evolve(
        data, source=lambda seed, data_dir: _read_features(source, data_dir, None, _file(source, data_dir))
    )
    return attrs.evolve(experiment, data=cached)


File = tuple[Path, int, int] | None


def _file(source: FeatureEnvironments, data_dir: Path | None) -> File:
    """Return what tells a file from others and from itself before a change: path, time and size; None: no file."""
    path = in_data_folder(source.path, data_dir).absolute()
    try:
        known = path.stat()
    except OSError:
        return None
    return path, known.st_mtime_ns, known.st_size


@lru_cache(maxsize=24)
def _split(data: HeldOut, data_dir: Path | None, shared: torch.device, file: File) -> Domains:
    # Jobs of a group differ in few test environments and seeds of splits.
    environments = _read_features(cast(FeatureEnvironments, data.source), data_dir, shared, file)
    return attrs.evolve(data, source=lambda seed, data_dir: environments)(0, data_dir)


@lru_cache(maxsize=2)
def _read_features(
    source: FeatureEnvironments,
    data_dir: Path | None,
    shared: torch.device | None,
    file: File,  # part of the key: another file under the same name is read again
) -> Environments:
    # Reading the file costs a job more than its training; no seed changes it.
    environments = source(0, data_dir)
    return environments if shared is None else in_one_table(environments, shared)


@contextmanager
def logged(path: Path) -> Generator[None]:
    """Append the output of this process, of libraries in C too, to a file while the context lasts."""
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


def _write_results(folder: Path, job: Job, threads: int, diverged_on: Domains | None = None) -> None:
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_initialized() else 0.0
    metrics = (folder / METRICS).read_text().splitlines()
    common = common_entries(job, threads=threads, mem_gb=memory)
    lines = list(result_lines(job, metrics, read_times(folder), common))
    if diverged_on is not None:
        lines += lines_after_divergence(job, lines, diverged_on, common)
    write_atomically(folder / RESULTS, dump_lines(lines))


def conclude(folder: Path, keep: Keep) -> Outcome:
    """Drop what a job with results does not keep, then mark it as done."""
    result = json.loads((folder / RESULT).read_bytes())
    lines = map(json.loads, (folder / RESULTS).read_text().splitlines())
    outcome = Outcome(float(result["seconds"]), best_validation(lines), result.get("step"))
    if keep == "results":
        for name in (CHECKPOINT, METRICS):
            (folder / name).unlink(missing_ok=True)
    elif (folder / CHECKPOINT).exists():
        drop_optimizer(folder / CHECKPOINT)
    (folder / TIMES).unlink(missing_ok=True)
    write_outcome(folder, outcome)
    return outcome
