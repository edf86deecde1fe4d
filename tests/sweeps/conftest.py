"""Sweeps over a tiny file of features, whose jobs take milliseconds each."""

import json

import numpy as np
import pytest

from fishr.data.caches import Section
from fishr.data.caches.feature_cache import write_features
from fishr.protocols.domainbed.settings import Settings
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.sweeps.groups import attempt_together
from fishr.sweeps.plan import Plan

ENVIRONMENTS, CLASSES, WIDTH, ROWS = "ACPS", 3, 8, 40
TIMES = ("step_time", "mem_gb")


def write_file(path, environments=ENVIRONMENTS, rows=ROWS):
    generator = np.random.default_rng(0)
    labels = [np.arange(rows) % CLASSES for _ in environments]
    centers = generator.normal(size=(CLASSES, WIDTH))
    features = [centers[y] + generator.normal(size=(rows, WIDTH)) + 0.3 * i for i, y in enumerate(labels)]

    def compute(domain, start, stop):
        return {
            "features": features[domain][start:stop],
            "labels": labels[domain][start:stop],
            "logits": np.zeros((stop - start, CLASSES)),
            "ids": np.arange(start, stop),
        }

    head = {"text": "", "outputs": CLASSES, "parameters": {}}
    sections = [Section(name, "training", rows) for name in environments]
    write_features(path, {"dtype": "float32"}, head, sections, compute, part_rows=1000)
    return path


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    """A file of four environments."""
    return write_file(tmp_path_factory.mktemp("features") / "features.h5")


@pytest.fixture(scope="session")
def plan(features):
    """Sixteen jobs of twenty steps and four evaluations."""
    settings = Settings(features={"PACS": str(features)}, steps=20, evaluate_every=8, hparams={"batch_size": 8})
    return Plan(("PACS",), ("ERM", "Fishr"), draws=2, trials=1, settings=settings)


@pytest.fixture(scope="session")
def whole(plan, tmp_path_factory):
    """The results of the plan's jobs, run one after another in this process and left alone."""
    folder = tmp_path_factory.mktemp("sweeps") / "whole"
    outcomes = [attempt(job, Conditions(folder)) for job in plan.jobs()]
    assert all(outcome.done for outcome in outcomes), outcomes
    return results(folder, plan.jobs())


@pytest.fixture(scope="session")
def whole_together(plan, tmp_path_factory):
    """The same of jobs that are computed as those of a group, each in one of its own."""
    folder = tmp_path_factory.mktemp("sweeps") / "together"
    ends = [end for job in plan.jobs() for end in attempt_together([job], Conditions(folder))]
    assert all(outcome.done for _, outcome in ends), ends
    return results(folder, plan.jobs())


def results(folder, jobs):
    """The lines of jobs' results without what may vary, by name of job."""
    found = {}
    for job in jobs:
        path = job_folder(folder, job) / "results.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[job.name] = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    return found


@pytest.fixture(scope="session")
def results_of():
    return results


@pytest.fixture(scope="session")
def feature_file():
    """Write a file of features."""
    return write_file
