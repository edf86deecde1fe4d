"""One job of a sweep in its folder: from wherever it stopped to its results."""

import json
import os
import sys
import time
import traceback
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from attrs import frozen

from fishr.configuration import dumps
from fishr.data.domains import Domains
from fishr.errors import InputError, RunFailed
from fishr.files import write_atomically
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.divergence import lines_after_divergence
from fishr.sweeps.failures import FAILED, LOG
from fishr.sweeps.folder import DONE, job_folder
from fishr.sweeps.listing import write_job
from fishr.sweeps.memory import Memory, remembering
from fishr.sweeps.plan import Keep
from fishr.sweeps.results import best_validation, dump_lines, result_lines, told_of
from fishr.sweeps.step_times import TIMES, append_to, read_times, time_line
from fishr.training.checkpoint_path import CHECKPOINT, RESULT
from fishr.training.checkpoints import drop_optimizer
from fishr.training.folders import CONFIGURATION, existing_folder, is_in_use, new_folder
from fishr.training.loop import Finished, Stepped
from fishr.training.records import METRICS, run
from fishr.training.step import NotFinite

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


@frozen
class Outcome:
    """What became of a job; a failure has a message.

    Args:
        seconds: it took, over all its interruptions.
        validation: its best accuracy on the held-out splits of the environments it trained on, 0 to 1.
        diverged: the step whose loss was not finite, after which DomainBed's records are known without training; None:
            it trained to its end.
        message: why it failed; None: it did not.
        broken: whether its process may have been left unable to run another one.

    Example:
        >>> Outcome(message="out of memory").done
        False
    """

    seconds: float = 0.0
    validation: float = 0.0
    diverged: int | None = None
    message: str | None = None
    broken: bool = False

    @property
    def done(self) -> bool:
        """Whether the job has its results."""
        return self.message is None


def attempt(job: Job, conditions: Conditions, memory: Memory) -> Outcome:
    """Run a job to its end, or to its failure; what it prints goes to its log.

    Args:
        job: any, begun before or not.
        conditions: of the sweep.
        memory: of this process.

    Example:
        >>> import tempfile
        >>> from fishr.protocols.domainbed.job import Settings
        >>> job = Job("PACS", "ERM", (0,), 0, 0, Settings(features={"PACS": "nowhere.h5"}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     attempt(job, Conditions(Path(folder)), Memory()).message
        'data/nowhere.h5: no such file; give the path of a file that fishr wrote'
    """
    folder = job_folder(conditions.folder, job)
    try:
        _prepare(folder, job)
        with logged(folder / LOG):
            return _guarded(job, conditions, memory)
    except (InputError, RunFailed) as error:
        return Outcome(message=_one_line(str(error)))


def _guarded(job: Job, conditions: Conditions, memory: Memory) -> Outcome:
    try:
        return run_job(job, conditions, memory)
    except (InputError, RunFailed) as error:
        print(error)
        return Outcome(message=_one_line(str(error)))
    # Whatever went wrong, one job must not end the others; its log says where.
    except Exception as error:
        traceback.print_exc()
        return Outcome(message=_one_line(f"{type(error).__name__}: {error}"), broken=True)


def run_job(job: Job, conditions: Conditions, memory: Memory) -> Outcome:
    """Train a job from its last checkpoint, then write results.jsonl and, last of all, ``done``.

    Args:
        job: whose folder is there.
        conditions: of the sweep.
        memory: of this process.

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
    experiment = remembering(job.experiment(), memory)
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


def read_outcome(folder: Path) -> Outcome | None:
    """What a finished job came to; None of one that is not finished.

    Args:
        folder: of the job.

    Raises:
        InputError: the file that says so is damaged.

    Example:
        >>> read_outcome(Path("no-such-job")) is None
        True
    """
    try:
        found = json.loads((folder / DONE).read_bytes())
        return Outcome(float(found["seconds"]), float(found["validation"]), found["diverged"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / DONE}: not what fishr wrote; remove it to have the job finished again") from error


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
