"""What a job takes of disk and memory."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from attrs import frozen

from fishr.configuration import dumps
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.plan import Keep
from fishr.sweeps.results import dump_lines, result_lines, told_of
from fishr.training.evaluation import DomainScore
from fishr.training.records import score_entries, step_entry
from fishr.training.state import TrainingState, without_optimizer
from fishr.training.step import StepRecord
from fishr.training.trees import named_tensors

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
