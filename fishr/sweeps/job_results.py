"""DomainBed's results.jsonl from the metrics of a job."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from fishr.configuration import unstructure
from fishr.data.domains import Domains
from fishr.protocols.domainbed.job import Job

Line = dict[str, Any]


def result_lines(job: Job, metrics: Iterable[str], seconds: Mapping[int, float], told: Line) -> tuple[Line, ...]:
    """The lines of results.jsonl, one an evaluation.

    Args:
        job: that the metrics are of.
        metrics: the lines of its metrics.jsonl.
        seconds: that each step took, of those that were measured.
        told: what every line has, of ``told_of``.

    Returns:
        In each: the step as DomainBed counts, from 0; the epoch; accuracies of all splits; the training metrics and
        ``step_time``, means since the line before, each penalty times its weight; the hyper-parameters and what the
        job was. A line without a measured step has no ``step_time``.

    Example:
        >>> job = Job("ColoredMNIST", "ERM", (1, 2), hparams_seed=0, trial_seed=0)
        >>> step = {"step": 0, "loss": 0.7, "risk": 0.7, "l2": 0.0, "terms": {}, "domain_losses": {"env0_in": 0.7}}
        >>> scores = [{"name": "env0_in", "accuracy": 0.5, "samples": 640}, {"name": "env0_out", "accuracy": 0.4}]
        >>> metrics = [json.dumps(step), json.dumps({"step": 1, "scores": scores})]
        >>> line, = result_lines(job, metrics, {0: 0.1}, told_of(job, threads=1, mem_gb=0.0))
        >>> line["step"], line["epoch"], line["loss"], line["step_time"], line["env0_out_acc"]
        (0, 0.0, 0.7, 0.1, 0.4)

    Source:
        The records of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    size = job.hparams["batch_size"]
    lines, steps = list[Line](), list[dict[str, float]]()
    for entry in map(json.loads, metrics):
        if "scores" not in entry:
            time = {"step_time": seconds[entry["step"]]} if entry["step"] in seconds else {}
            steps.append(_numbers(entry) | time)
            continue
        scores, step = entry["scores"], entry["step"] - 1
        smallest = min(score["samples"] for score in scores if score["name"].endswith("_in"))
        accuracies = {f"{score['name']}_acc": score["accuracy"] for score in scores}
        lines.append(told | {"step": step, "epoch": step * size / smallest} | _means(steps) | accuracies)
        steps = []
    return tuple(lines)


def told_of(job: Job, *, threads: int, mem_gb: float) -> Line:
    """What every line of a job has.

    Args:
        job: any.
        threads: that it computed with.
        mem_gb: largest memory on the GPU, GiB.

    Example:
        >>> sorted(told_of(Job("PACS", "ERM", (0,), 0, 0), threads=1, mem_gb=0.0))
        ['args', 'hparams', 'mem_gb']
    """
    return {"hparams": job.hparams, "args": arguments(job, threads), "mem_gb": mem_gb}


def arguments(job: Job, threads: int) -> Line:
    """What a job was, under DomainBed's names, with the settings of its sweep.

    Args:
        job: any.
        threads: that it computes with.

    Example:
        >>> told = arguments(Job("PACS", "ERM", (0,), hparams_seed=2, trial_seed=1), threads=1)
        >>> told["dataset"], told["test_envs"], told["holdout_fraction"], told["protocol"]
        ('PACS', [0], 0.2, 'domainbed-2021')
    """
    return unstructure(job.settings) | {
        "algorithm": job.algorithm,
        "dataset": job.dataset,
        "test_envs": list(job.test_envs),
        "trial_seed": job.trial_seed,
        "hparams_seed": job.hparams_seed,
        "seed": job.run_seed,
        "task": "domain_generalization",
        "threads": threads,
    }


def dump_lines(lines: Iterable[Line]) -> bytes:
    r"""Lines of standard JSON with sorted keys.

    Example:
        >>> dump_lines([{"b": 1, "a": 0.5}])
        b'{"a": 0.5, "b": 1}\n'
    """
    return "".join(f"{json.dumps(line, sort_keys=True, allow_nan=False)}\n" for line in lines).encode()


def best_validation(lines: Iterable[Line]) -> float:
    """The best mean accuracy over the held-out splits of the environments that were trained on.

    Args:
        lines: of one job, at least one.

    Returns:
        From 0 to 1.

    Example:
        >>> line = {"args": {"test_envs": [0]}, "env0_out_acc": 0.9, "env1_out_acc": 0.5, "env2_out_acc": 0.7}
        >>> best_validation([line])
        0.6
    """
    return max(fmean(_validation(line)) for line in lines)


def _validation(line: Mapping[str, Any]) -> Iterator[float]:
    tested = {f"env{index}_out_acc" for index in line["args"]["test_envs"]}
    return (value for name, value in line.items() if name.endswith("_out_acc") and name not in tested)


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    terms = {name: term["value"] for name, term in entry["terms"].items()}
    return {"loss": entry["loss"], "risk": entry["risk"], **terms}


def _means(steps: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: fmean(step[name] for step in steps if name in step) for name in names}


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
