"""DomainBed's results.jsonl from the metrics of a job.

Source: the records of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from fishr.configuration import unstructure
from fishr.data.domains import Domains
from fishr.losses import outputs_of, shares_correct
from fishr.protocols.domainbed.job import Job

Line = dict[str, Any]


def result_lines(job: Job, metrics: Iterable[str], seconds: Mapping[int, float], common: Line) -> tuple[Line, ...]:
    """Return the lines of results.jsonl, one an evaluation, as DomainBed writes them, from those of metrics.jsonl."""
    size = job.batch_size
    lines, steps = list[Line](), list[dict[str, float]]()
    for entry in map(json.loads, metrics):
        if "scores" not in entry:
            time = {"step_time": seconds[entry["step"]]} if entry["step"] in seconds else {}
            terms = {name: term["value"] for name, term in entry["terms"].items()}
            steps.append({"loss": entry["loss"], "risk": entry["risk"]} | terms | time)
            continue
        scores, step = entry["scores"], entry["step"] - 1
        smallest = min(score["samples"] for score in scores if score["name"].endswith("_in"))
        accuracies = {f"{score['name']}_acc": score["accuracy"] for score in scores}
        lines.append(common | {"step": step, "epoch": step * size / smallest} | _means(steps) | accuracies)
        steps = []
    return tuple(lines)


def _means(steps: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: fmean(step[name] for step in steps if name in step) for name in names}


def common_entries(job: Job, *, threads: int, mem_gb: float) -> Line:
    """Return the entries of every line: hyper-parameters, DomainBed's arguments and our settings, GPU memory in GiB."""
    table = unstructure(job)
    of_run = {"seed": job.run_seed, "task": "domain_generalization", "threads": threads}
    return {"hparams": job.hparams, "args": table.pop("settings") | table | of_run, "mem_gb": mem_gb}


def lines_after_divergence(job: Job, lines: Sequence[Line], domains: Domains, common: Line) -> list[Line]:
    """Return the lines that follow a loss that is not finite: every sample is classified as class 0."""
    # The update after such a loss makes every weight NaN, and the argmax of NaN logits is 0. DomainBed trains on.
    experiment, everything = job.experiment(), (*domains.training, *domains.evaluation)
    outputs, accuracies = outputs_of(experiment.loss, domains.classes, domains.label_columns), dict[str, float]()
    for one in everything:
        labels = one.labeled(experiment.loss).labels
        logits = torch.full((len(labels), outputs), torch.nan, dtype=torch.float64)
        accuracies[f"{one.name}_acc"] = float(shares_correct(experiment.loss, logits, labels.cpu()).mean())
    smallest = min(len(one.labels) for one in everything if one.name.endswith("_in"))
    after = max((line["step"] for line in lines), default=-1)
    size = job.batch_size
    steps = [step for step in range(after + 1, job.steps) if experiment.evaluates(step + 1)]
    return [common | accuracies | {"step": step, "epoch": step * size / smallest} for step in steps]


def dump_lines(lines: Iterable[Line]) -> bytes:
    """Return lines of standard JSON with sorted keys."""
    return "".join(f"{json.dumps(line, sort_keys=True, allow_nan=False)}\n" for line in lines).encode()


def best_validation(lines: Iterable[Line]) -> float:
    """Return the best mean accuracy over the held-out splits of the environments that were trained on, 0 to 1."""
    return max(fmean(_validation(line)) for line in lines)


def _validation(line: Line) -> list[float]:
    tested = {f"env{index}_out_acc" for index in line["args"]["test_envs"]}
    return [value for name, value in line.items() if name.endswith("_out_acc") and name not in tested]
