"""Time, disk and memory of a sweep, estimated from a few steps and a part of one evaluation of each kind of job."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean

import attrs
import torch
from attrs import frozen

from fishr.configuration import dumps
from fishr.data.domains import Domains
from fishr.files import json_text
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import with_cached_features
from fishr.sweeps.job_results import common_entries, dump_lines, result_lines
from fishr.sweeps.plan import Keep
from fishr.tensor_trees import named_tensors
from fishr.training.compute import resolve_device
from fishr.training.evaluation import DomainScore, evaluate, score_entries
from fishr.training.experiment import Experiment
from fishr.training.loop import batch_source
from fishr.training.model import Model, build_model
from fishr.training.state import TrainingState, first_state, without_optimizer
from fishr.training.step import StepRecord, advance, step_entry

_ENOUGH, _STEPS, _SAMPLES = 0.5, 20, 32  # seconds; steps at most; samples of each domain at first
# Of a file system; and of a checkpoint's file beside each tensor's numbers: its name, place and alignment.
_BLOCK, _HEADER = 4096, 400


@frozen
class Footprint:
    """Bytes that jobs take."""

    kept: int  # on disk, of all finished jobs
    checkpoint: int  # on disk, the largest of one running job
    memory: int | None = None  # of one process, at most; None: unknown
    gpu_memory: int | None = None  # of one process, at most; None: no GPU

    def disk(self, workers: int) -> int:
        """Return the bytes on disk at most: until a new checkpoint is whole, the one before it stays."""
        return self.kept + 2 * workers * self.checkpoint


@frozen
class Estimate:
    """Work and cost of all jobs of one data set and method."""

    dataset: str
    algorithm: str
    jobs: int
    steps: int
    evaluations: int
    seconds: float | None = None  # one job after another; None: not measured
    footprint: Footprint | None = None


def count_work(jobs: Iterable[Job]) -> tuple[Estimate, ...]:
    """Return the work by data set and method, in the plan's order, without measuring."""
    return tuple(_counted(cell) for cell in _cells(jobs))


def total_of(found: Sequence[Estimate]) -> Estimate:
    """Return the sum of estimates, and their largest checkpoint and memory, since every worker may run any job."""
    counts = (sum(e.jobs for e in found), sum(e.steps for e in found), sum(e.evaluations for e in found))
    seconds = [e.seconds for e in found if e.seconds is not None]
    parts = [e.footprint for e in found if e.footprint is not None]
    footprint = Footprint(
        kept=sum(part.kept for part in parts),
        checkpoint=max((part.checkpoint for part in parts), default=0),
        memory=max((part.memory for part in parts if part.memory is not None), default=None),
        gpu_memory=max((part.gpu_memory for part in parts if part.gpu_memory is not None), default=None),
    )
    return Estimate("total", "", *counts, sum(seconds) if seconds else None, footprint if parts else None)


def calibrate(
    jobs: Iterable[Job], data_dir: Path | None = None, device: str = "cpu", threads: int = 1, keep: Keep = "results"
) -> Iterator[Estimate]:
    """Yield the same with seconds, disk and memory, measured on one job of each kind, of about the mean batch size."""
    where, before = resolve_device(device), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for cell in _cells(jobs):
            mean = fmean(job.batch_size for job in cell)
            usual = min(cell, key=lambda job: abs(job.batch_size - mean))
            (start, step, evaluation), one = _costs(usual, data_dir, where, keep)
            # The peak of this process so far, plus a checkpoint about to be written.
            counted, peak = _counted(cell), peak_memory()
            footprint = attrs.evolve(
                one,
                kept=one.kept * counted.jobs,
                memory=None if peak is None else peak + one.checkpoint,
                gpu_memory=torch.cuda.max_memory_reserved(where) if where.type == "cuda" else None,
            )
            seconds = start * counted.jobs + step * counted.steps + evaluation * counted.evaluations
            yield attrs.evolve(counted, seconds=seconds, footprint=footprint)
    finally:
        torch.set_num_threads(before)


def _cells(jobs: Iterable[Job]) -> list[list[Job]]:
    # In the order of a plan, the jobs of a data set and method follow each other.
    return [list(cell) for _, cell in groupby(jobs, lambda job: (job.dataset, job.algorithm))]


def _counted(cell: Sequence[Job]) -> Estimate:
    steps, evaluations = sum(job.steps for job in cell), sum(job.evaluations for job in cell)
    return Estimate(cell[0].dataset, cell[0].algorithm, len(cell), steps, evaluations)


def _costs(
    job: Job, data_dir: Path | None, device: torch.device, keep: Keep
) -> tuple[tuple[float, float, float], Footprint]:
    """Return the seconds of a job's start, of one of its steps and of one of its evaluations; and its footprint."""
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
    """Return the seconds of a step, the state after it and its record."""
    source = batch_source(experiment, domains.training)
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
    """Return the seconds of an evaluation, and the scores of a part of one."""
    everything, trained = (*domains.training, *domains.evaluation), len(domains.training)
    total, samples, seconds = sum(len(domain.labels) for domain in everything), _SAMPLES, 0.0
    while True:
        some = [domain.part(range(min(samples, len(domain.labels)))) for domain in everything]
        count = sum(len(domain.labels) for domain in some)
        part = Domains(tuple(some[:trained]), tuple(some[trained:]), domains.classes)
        begun = time.perf_counter()
        scores = evaluate(model, experiment, state, part)
        # The first one warms up.
        if seconds and (time.perf_counter() - begun > _ENOUGH / 4 or count == total):
            return (time.perf_counter() - begun) * total / count, scores
        seconds = time.perf_counter() - begun
        samples = 2 * samples


def job_footprint(
    job: Job, state: TrainingState, record: StepRecord, scores: Sequence[DomainScore], keep: Keep
) -> Footprint:
    """Return the footprint of one job on disk, from its state after a step, that step, and one evaluation."""
    trained = [score.name for score in scores if score.split == "training"]
    step = json_text(step_entry(record, trained))
    evaluation = json_text({"step": job.steps, "scores": score_entries(scores)})
    common = common_entries(job, threads=1, mem_gb=0.0)
    (line,) = result_lines(job, [step, evaluation], {record.step: 0.123456}, common)
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
    """Return the size of a checkpoint's file, within a few percent for megabytes."""
    return sum(tensor.nbytes + _HEADER for _, tensor in named_tensors(state))


def peak_memory() -> int | None:
    """Return the peak memory of this process so far, bytes; None where the system does not say."""
    status = Path("/proc/self/status")
    try:
        words = next(line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None
    return int(words[1]) * 1024
