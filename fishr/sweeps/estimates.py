"""Time, disk and memory that a sweep will take, estimated from a few steps of each kind of job."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import attrs
import torch
from attrs import frozen

from fishr.configuration import dumps
from fishr.data.domains import Domains
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import with_cached_features
from fishr.sweeps.job_results import dump_lines, result_lines, told_of
from fishr.sweeps.plan import Keep
from fishr.training.compute import resolve_device
from fishr.training.evaluation import DomainScore, evaluate
from fishr.training.experiment import Experiment
from fishr.training.model import Model
from fishr.training.prefetch import source_of
from fishr.training.runs import score_entries, step_entry
from fishr.training.state import TrainingState, build_model, first_state, without_optimizer
from fishr.training.step import StepRecord, advance
from fishr.training.tensor_trees import named_tensors

# Of a file system; and of a checkpoint's file beside each tensor's numbers: its name, place and alignment.
_BLOCK, _HEADER = 4096, 400


@frozen
class Footprint:
    """Bytes that jobs take.

    Args:
        kept: on disk, of all of them when they are finished.
        checkpoint: on disk, of one that runs, its largest checkpoint.
        memory: of one process that runs them, at most; None: not known on this system.
        gpu_memory: of one process, at most; None: no GPU.

    Example:
        >>> Footprint(kept=10, checkpoint=4, memory=7).disk(workers=2)
        26
    """

    kept: int
    checkpoint: int
    memory: int | None = None
    gpu_memory: int | None = None

    def disk(self, workers: int) -> int:
        """Return the bytes on disk at most: until a new checkpoint is whole, the one before it stays."""
        return self.kept + 2 * workers * self.checkpoint


def job_footprint(
    job: Job, state: TrainingState, record: StepRecord, scores: Sequence[DomainScore], keep: Keep
) -> Footprint:
    """Return the footprint of one job, without memory.

    Args:
        job: any.
        state: of it, after a step.
        record: of that step.
        scores: of one evaluation.
        keep: what the job keeps when it is finished.
    """
    trained = [score.name for score in scores if score.split == "training"]
    step = json.dumps(step_entry(record, trained), sort_keys=True)
    evaluation = json.dumps({"step": job.steps, "scores": score_entries(scores)}, sort_keys=True)
    told = told_of(job, threads=1, mem_gb=0.0)
    (line,) = result_lines(job, [step, evaluation], {record.step: 0.123456}, told)
    metrics = job.steps * (len(step) + 1) + job.evaluations * (len(evaluation) + 1)
    sizes = [
        job.evaluations * len(dump_lines([line])),
        len(evaluation) + _BLOCK // 2,
        *(len(dumps(one).encode()) for one in (job, job.experiment())),
        *(1, 1),  # done, and the folder itself
        *([metrics, checkpoint_bytes(without_optimizer(state))] if keep == "weights" else []),
    ]
    return Footprint(sum(-size // _BLOCK * -_BLOCK for size in sizes), checkpoint_bytes(state))


def checkpoint_bytes(state: TrainingState) -> int:
    """Return the size of a checkpoint's file, within a few percent for megabytes.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.state import initial_state
        >>> experiment = colored_digits()
        >>> state = initial_state(experiment, experiment.data(experiment.seed, None))
        >>> round(checkpoint_bytes(state) / checkpoint_bytes(without_optimizer(state)), 1)
        3.0
    """
    return sum(tensor.nbytes + _HEADER for _, tensor in named_tensors(state))


def peak_memory() -> int | None:
    """Return the bytes of memory that this process has held at most so far; None where the system does not say."""
    status = Path("/proc/self/status")
    try:
        words = next(line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(words[1]) * 1024


def peak_gpu_memory(device: torch.device) -> int | None:
    """Return the bytes that this process has reserved on a GPU at most so far; None without one."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


_ENOUGH, _STEPS, _ROWS = 0.5, 20, 32  # seconds; steps at most; rows of each domain at first


@frozen
class Estimate:
    """Jobs of one data set and algorithm, and what they will cost.

    Args:
        dataset: by name.
        algorithm: by name.
        jobs: how many.
        steps: of all of them.
        evaluations: of all of them.
        seconds: of all of them, one after another; None: not measured.
        footprint: on disk and in memory; None: not measured.

    Example:
        >>> Estimate("PACS", "ERM", jobs=240, steps=1_200_240, evaluations=4_320).seconds is None
        True
    """

    dataset: str
    algorithm: str
    jobs: int
    steps: int
    evaluations: int
    seconds: float | None = None
    footprint: Footprint | None = None


def count_work(jobs: Iterable[Job]) -> tuple[Estimate, ...]:
    """What there is to do by data set and algorithm, in the plan's order; nothing is measured.

    Args:
        jobs: of a plan.

    Example:
        >>> count_work([Job("PACS", "ERM", (0,), draw, 0) for draw in range(3)])[0].evaluations
        54
    """
    return tuple(
        Estimate(*key, len(cell), sum(job.steps for job in cell), sum(job.evaluations for job in cell))
        for key, cell in _cells(jobs).items()
    )


def total_of(found: Sequence[Estimate]) -> Estimate:
    """The sum of estimates; checkpoint and memory are the largest, since every worker may run any job.

    Args:
        found: all measured, or none.

    Example:
        >>> total_of([Estimate("PACS", "ERM", 1, 10, 2, 3.0), Estimate("PACS", "Fishr", 1, 10, 2, 5.0)]).seconds
        8.0
    """
    seconds = [e.seconds for e in found if e.seconds is not None]
    counts = (sum(e.jobs for e in found), sum(e.steps for e in found), sum(e.evaluations for e in found))
    parts = [e.footprint for e in found if e.footprint is not None]
    return Estimate("total", "", *counts, sum(seconds) if seconds else None, _together(parts) if parts else None)


def calibrate(
    jobs: Iterable[Job],
    data_dir: Path | None = None,
    device: str = "cpu",
    threads: int = 1,
    keep: Keep = "results",
) -> Iterator[Estimate]:
    """The same with seconds, disk and memory, each as soon as it is measured: on one job of each kind, of about the
    mean batch size.

    Steps are timed with every penalty at its full weight, so jobs with a long warm-up take less. Memory is the most
    that this process held so far, with a checkpoint about to be written.

    Args:
        jobs: of a plan.
        data_dir: where data files lie.
        device: "cpu", "cuda" or "auto".
        threads: of each job.
        keep: what finished jobs keep.

    Raises:
        InputError: data or weights that are missing.

    Example:
        >>> list(calibrate([]))
        []
    """
    where, before = resolve_device(device), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for estimate, cell in zip(count_work(jobs := tuple(jobs)), _cells(jobs).values(), strict=True):
            sizes = [float(job.hparams["batch_size"]) for job in cell]
            usual = min(cell, key=lambda job: abs(job.hparams["batch_size"] - fmean(sizes)))
            (start, step, evaluation), one = _costs(usual, data_dir, where, keep)
            seconds = start * estimate.jobs + step * estimate.steps + evaluation * estimate.evaluations
            held = peak_memory()
            footprint = attrs.evolve(
                one,
                kept=one.kept * estimate.jobs,
                memory=None if held is None else held + one.checkpoint,
                gpu_memory=peak_gpu_memory(where),
            )
            yield attrs.evolve(estimate, seconds=seconds, footprint=footprint)
    finally:
        torch.set_num_threads(before)


def _cells(jobs: Iterable[Job]) -> dict[tuple[str, str], list[Job]]:
    cells = dict[tuple[str, str], list[Job]]()
    for job in jobs:
        cells.setdefault((job.dataset, job.algorithm), []).append(job)
    return cells


def _together(parts: Sequence[Footprint]) -> Footprint:
    memory = [part.memory for part in parts if part.memory is not None]
    gpu_memory = [part.gpu_memory for part in parts if part.gpu_memory is not None]
    return Footprint(
        kept=sum(part.kept for part in parts),
        checkpoint=max(part.checkpoint for part in parts),
        memory=max(memory, default=None),
        gpu_memory=max(gpu_memory, default=None),
    )


def _costs(
    job: Job, data_dir: Path | None, device: torch.device, keep: Keep
) -> tuple[tuple[float, float, float], Footprint]:
    """Seconds of a job's beginning, of one of its steps and of one of its evaluations; and what it takes of disk."""
    experiment = with_cached_features(job.experiment())
    domains = experiment.data(experiment.seed, data_dir).to(device)
    begun = time.perf_counter()
    domains = experiment.data(experiment.seed, data_dir).to(device)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    start = time.perf_counter() - begun
    # As in the last step every penalty has its full weight.
    state = attrs.evolve(state, step=max(0, job.steps - 1))
    step, after, record = _timed_step(experiment, model, state, domains)
    evaluation, scores = _timed_evaluation(experiment, model, state, domains)
    return (start, step, evaluation), job_footprint(job, after, record, scores, keep)


def _timed_step(
    experiment: Experiment, model: Model, state: TrainingState, domains: Domains
) -> tuple[float, TrainingState, StepRecord]:
    """Seconds of a step, the state after it and its record."""
    source = source_of(experiment, domains.training)
    begun, done = 0.0, -1
    while True:
        # The same weights with the next batch. Reading the step's numbers waits for the device.
        after, record = advance(model, experiment, state, source)
        state = attrs.evolve(state, generator=after.generator)
        done += 1
        # The first step warms up.
        begun = begun or time.perf_counter()
        if done == _STEPS or (done and time.perf_counter() - begun >= _ENOUGH):
            return (time.perf_counter() - begun) / done, after, record


def _timed_evaluation(
    experiment: Experiment, model: Model, state: TrainingState, domains: Domains
) -> tuple[float, tuple[DomainScore, ...]]:
    """Seconds of an evaluation, and the scores of a part of one."""
    everything = (*domains.training, *domains.evaluation)
    total, rows, seconds = sum(len(domain.labels) for domain in everything), _ROWS, 0.0
    while True:
        some = [domain.part(range(min(rows, len(domain.labels)))) for domain in everything]
        count = sum(len(domain.labels) for domain in some)
        begun = time.perf_counter()
        trained = len(domains.training)
        scores = evaluate(
            model, experiment, state, Domains(tuple(some[:trained]), tuple(some[trained:]), domains.classes)
        )
        # The first one warms up.
        if seconds and (time.perf_counter() - begun > _ENOUGH / 4 or count == total):
            return (time.perf_counter() - begun) * total / count, scores
        seconds = time.perf_counter() - begun
        rows = 2 * rows
