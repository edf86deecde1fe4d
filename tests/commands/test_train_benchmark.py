"""One job of the benchmark without a plan, beside the same job of a sweep."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fishr.configuration import load
from fishr.data.caches import Section
from fishr.data.caches.feature_cache import write_features
from fishr.inference import load_model
from fishr.protocols.domainbed.job import Job
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import job_folder
from fishr.tensor_trees import named_tensors

JOB = ("--benchmark", "PACS", "--algorithm", "Fishr", "--test-env", 0, "--hparams-seed", 1, "--trial-seed", 2)
SHORT = ("--steps", 6, "--set", "settings.evaluate_every=4", "--set", "settings.features.PACS=features.h5")
TRAIN = ("train", *JOB, *SHORT, "--set", "settings.hparams.batch_size=8", "--device", "cpu")


@pytest.fixture
def world(home):
    """A file of features of PACS's environments in the data folder."""
    generator, labels = np.random.default_rng(0), np.arange(30) % 3
    features = [generator.normal(size=(30, 5)) + labels[:, None] for _ in "ACPS"]

    def compute(domain, start, stop):
        logits, ids = np.zeros((stop - start, 3)), np.arange(start, stop)
        return {"features": features[domain][start:stop], "labels": labels[start:stop], "logits": logits, "ids": ids}

    head = {"text": "", "outputs": 3, "parameters": {}}
    sections = [Section(name, "training", 30) for name in "ACPS"]
    (home / "data").mkdir()
    write_features(home / "data" / "features.h5", {"dtype": "float32"}, head, sections, compute, part_rows=30)
    return home


def results(folder):
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert all(line["step_time"] > 0 for line in lines)
    return [{key: value for key, value in line.items() if key not in ("step_time", "mem_gb")} for line in lines]


def bits(tree):
    return [(name, tensor.numpy().tobytes()) for name, tensor in named_tensors(tree)]


def same_folder(folder, other):
    """The files of a finished job, without the entries that depend on clocks and threads."""
    for name in ("config.toml", "job.toml", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert results(folder) == results(other)
    one, two = (torch.load(place / "checkpoint.pt", weights_only=True) for place in (folder, other))
    one, two = ({k: v for k, v in tree.items() if k != "seconds"} for tree in (one, two))
    assert dict(bits(one)) == dict(bits(two))
    assert one["signature"] == two["signature"]
    assert (folder / "done").exists()
    assert not (folder / "times.jsonl").exists()
    model, again = load_model(folder), load_model(other)
    assert (model.step, model.shape, model.classes) == (6, (5,), 3)
    assert torch.equal(model(torch.ones(2, 5)), again(torch.ones(2, 5)))


def swept(job):
    """The folder of the same job, run as a sweep runs it."""
    conditions = Conditions(folder=job.parent / "sweep", threads=torch.get_num_threads(), keep="weights")
    made = load(job, Job)
    assert attempt(made, conditions).done
    return job_folder(conditions.folder, made)


def test_it_is_the_job_of_a_sweep(call, world):
    said = call(*TRAIN, "--out", "run")
    assert (said.code, said.out.splitlines()[-2]) == (0, "run: run"), said
    shutil.copy("run/job.toml", "job.toml")
    same_folder(world / "run", swept(world / "job.toml"))
    made = load("run/job.toml", Job)
    assert (made.test_envs, made.hparams_seed, made.trial_seed, made.steps) == ((0,), 1, 2, 6)
    assert made.hparams["lambda"] != Job("PACS", "Fishr", (0,), 0, 0).hparams["lambda"]


def test_interrupted_and_resumed_it_is_the_same_job(call, world, monkeypatch):
    from fishr.training import journal

    real, calls = journal.save, []

    def stopping(*arguments, **options):
        real(*arguments, **options)
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal, "save", stopping)
    said = call(*TRAIN, "--out", "run")
    assert said.code == 1
    assert "run: interrupted; resume it with fishr train --resume run" in said.err
    assert not (world / "run" / "results.jsonl").exists()
    assert call("train", "--resume", "run", "--device", "cpu").code == 0
    shutil.copy("run/job.toml", "job.toml")
    same_folder(world / "run", swept(world / "job.toml"))


def test_a_finished_job_is_left_as_it_is(call, world, snapshot):
    assert call(*TRAIN, "--out", "run").code == 0
    (world / "run" / "figure.png").unlink()
    before = snapshot(world / "run")
    assert call("train", "--resume", "run").code == 0
    (world / "run" / "figure.png").unlink()
    assert snapshot(world / "run") == before


def test_test_environments_come_in_any_order(call, world):
    assert call(*TRAIN, "--test-env", 3, "--test-env", 1, "--steps", 1, "--out", "run").code == 0
    assert load("run/job.toml", Job).test_envs == (0, 1, 3)


def test_collect_reads_it(call, world):
    assert call(*TRAIN, "--out", "runs/one").code == 0
    said = call("sweep", "collect", "runs")
    assert said.code == 0
    assert "Fishr" in said.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--benchmark", "pacs", "--algorithm", "ERM", "--test-env", 0), "data set: got 'pacs', .*did you mean PACS?"),
        (("--benchmark", "PACS", "--algorithm", "fisher", "--test-env", 0), "algorithm: got 'fisher'.*you mean Fishr?"),
        (("--benchmark", "PACS", "--algorithm", "ERM", "--test-env", 9), "got 9, expected one of 0 (A), 1 (C)"),
        (
            ("--benchmark", "PACS", "--algorithm", "ERM"),
            "--test-env: got none, expected one or more of 0 (A), 1 (C), 2",
        ),
        (("--benchmark", "PACS", "--test-env", 0), "--algorithm: got none, expected one of "),
        (("--algorithm", "ERM"), "--algorithm: got it without --benchmark; name a data set with it, or drop"),
        (("colored-digits", *JOB), "RECIPE or FILE: got it together with --benchmark"),
        ((*JOB, "1"), "drop one of them, and repeat --test-env for each environment"),
        ((*JOB, "--set", "image_size=32"), 'image_size: unknown key; did you mean "settings.image_size"?'),
        (("--seed", 1, *JOB), "--seed: got it together with --benchmark, whose job decides it"),
        ((*JOB, "--set", "settings.stepz=3"), "did you mean"),
    ],
)
def test_what_names_no_job_is_refused(refused, world, arguments, part):
    if ".*" in part:
        for one in part.split(".*"):
            refused(world, ("train", *arguments), one)
    else:
        refused(world, ("train", *arguments), part)


def test_steps_are_an_option_of_every_run(call, short):
    assert call("train", *short, "--steps", 3, "--out", "run").code == 0
    assert json.loads(Path("run/result.json").read_bytes())["steps"] == 3
