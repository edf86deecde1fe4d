"""``train --log``: a log beside the run folder's files, without a change of the run."""

import sys
import warnings
from pathlib import Path

import pytest

MINE = '''
from contextlib import contextmanager

@contextmanager
def table(folder, key, settings):
    """A row of a CSV file a step."""
    with open(f"{folder}.csv", "a") as file:
        yield lambda rows: file.writelines(f"{row.step},{row.values.get('loss', '')}\\n" for row in rows)

@contextmanager
def broken(folder, key, settings):
    raise OSError("no server")
    yield

def other(name):
    pass
'''


@pytest.fixture
def mine(home, monkeypatch):
    (home / "mine.py").write_text(MINE)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield home
    sys.modules.pop("mine", None)


def test_a_run_with_logs_is_the_run_without(call, mine, finished, short_fishr, weights):
    logs = ["--log", "tensorboard", "--log", "mine:table", "--log", "mine:broken", "--plugin", "mine"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        said = call("train", *short_fishr, "--seed", 3, "--out", "run", *logs)
    assert said.code == 0, said
    (warning,) = [line for line in said.err.splitlines() if line.startswith("Warning")]
    assert warning == "Warning: broken: the log failed and is closed, the run goes on (OSError: no server)"
    assert (mine / "run" / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    assert weights(mine / "run") == weights(finished)
    assert [line.split(",")[0] for line in (mine / "run.csv").read_text().splitlines()] == list("01234567")
    assert list((mine / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_a_run_resumes_with_its_log(call, mine, interrupted):
    said = call("train", "--resume", "finished", "--log", "mine:table", "--plugin", "mine")
    assert said.code == 0, said
    # The log was not there before; it gets all steps.
    assert [line.split(",")[0] for line in Path("finished.csv").read_text().splitlines()] == list("01234567")


def test_every_job_of_a_sweep_has_its_log(call, mine, world, in_process):
    said = call(
        "sweep", "run", "plan.toml", "--data-dir", "data", "--out", "sweep", "--log", "mine:table", "--plugin", "mine"
    )
    assert said.code == 0, said
    jobs = [path for path in Path("sweep/jobs").iterdir() if path.is_dir()]
    assert len(jobs) == 8
    for job in jobs:
        steps = [line.split(",")[0] for line in Path(f"{job}.csv").read_text().splitlines()]
        assert steps == [*map(str, range(len(steps)))]
        assert len(steps) > 2


def test_refused_logs(mine, refused, monkeypatch):
    for log, part in {
        "tensorbord": 'expected mlflow, tensorboard, wandb or module:Name; did you mean "tensorboard"?',
        "mine:table": "pass --plugin mine",
    }.items():
        refused(mine, ["train", "--log", log], f"--log: {'got' if ':' not in log else ''}")
        refused(mine, ["train", "--log", log], part)
    for log, part in {"mine:nothing": "has no nothing", "mine:other": "no Logger, it takes (name)"}.items():
        refused(mine, ["train", "--log", log, "--plugin", "mine"], part)
    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(mine, ["train", "--log", "wandb"], "--log: wandb is not installed; run pip install -e '.[wandb]'")
