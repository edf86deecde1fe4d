"""What DomainBed goes on to record of a job whose loss is no longer finite."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fishr.data.domains import Domains
from fishr.protocols.domainbed.job import Job

Line = dict[str, Any]


def lines_after_divergence(job: Job, lines: Sequence[Line], domains: Domains, told: Mapping[str, Any]) -> list[Line]:
    """The records that are missing, of a network whose weights are NaN: it takes everything for class 0.

    The update that follows a loss that is not finite makes every weight NaN, and the largest of NaN logits is the
    first. DomainBed trains on and records that; here the steps are spared.

    Args:
        job: which.
        lines: recorded before, in order.
        domains: its data.
        told: what every line of the job has.

    Returns:
        A line for each evaluation after those.

    Example:
        >>> from fishr.data.domains import Domain
        >>> from fishr.protocols.domainbed.settings import Settings
        >>> one = Domain("env0_in", torch.zeros(4, 1), torch.tensor([0, 1, 2, 0]))
        >>> job = Job("PACS", "ERM", (0,), 0, 0, Settings(steps=3, evaluate_every=1))
        >>> found = lines_after_divergence(job, [{"step": 0}], Domains((one,), (), classes=3), {})
        >>> [(line["step"], line["env0_in_acc"]) for line in found]
        [(1, 0.5), (2, 0.5)]

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    everything = (*domains.training, *domains.evaluation)
    accuracies = {f"{one.name}_acc": float((one.labels == 0).to(torch.float64).mean()) for one in everything}
    smallest = min(len(one.labels) for one in everything if one.name.endswith("_in"))
    after = max((line["step"] for line in lines), default=-1)
    experiment, size = job.experiment(), job.hparams["batch_size"]
    steps = [step for step in range(after + 1, job.steps) if experiment.evaluates(step + 1)]
    return [dict(told) | accuracies | {"step": step, "epoch": step * size / smallest} for step in steps]
