"""Runs that fail while they run: exit code 1, one line that says where, the last checkpoint kept."""

import itertools
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fishr.training import loop

ROOT = Path(__file__).resolve().parents[2]


def _last_line(said):
    assert said.code == 1
    assert said.out == ""
    assert "Traceback" not in said.err
    *progress, line = said.err.splitlines()
    assert all(text.startswith(("step ", "loss at step ", "logged: ")) for text in progress)
    return line


def test_a_loss_that_is_not_finite(call, home, short):
    options = ("colored-digits-erm", *short, "--set", "optimizer.lr=1e30", "--set", "checkpoint_every=1")
    line = _last_line(call("train", *options, "--out", "run"))
    assert line == (
        "Error: run: step 1: risk is nan, expected a finite number; try a smaller learning rate; "
        "its last checkpoint is kept"
    )
    assert torch.load(home / "run" / "checkpoint.pt", weights_only=True)["step"] == 1
    result = json.loads((home / "run" / "result.json").read_text())
    assert (result["status"], result["step"], result["term"]) == ("failed", 1, "risk")
    assert call("evaluate", "run").code == 0


def test_the_term_is_named(call, home, short_fishr):
    """In the step in which the penalty's weight rises beyond float32."""
    after = "objective.penalty.fishr.schedule.after=1e308"
    line = _last_line(call("train", *short_fishr, "--set", after, "--out", "run"))
    assert line.startswith("Error: run: step 4: fishr is inf, expected a finite number")
    assert torch.load(home / "run" / "checkpoint.pt", weights_only=True)["step"] == 4
    assert json.loads((home / "run" / "result.json").read_text())["term"] == "fishr"


@pytest.fixture
def small_files():
    """Let files grow to so many bytes only, as a full disk would."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def _free():
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)


def test_a_disk_that_is_full_for_checkpoints(call, home, short_fishr, small_files, weights, finished_once):
    small_files(10_000)
    line = _last_line(call("train", *short_fishr, "--seed", 3, "--out", "run"))
    _free()
    assert line == "Error: run/checkpoint.pt: could not be written (File too large); nothing was left behind"
    assert sorted(path.name for path in (home / "run").iterdir()) == ["config.toml", "metrics.jsonl"]
    assert call("train", "--resume", "run").code == 0
    assert weights(home / "run") == weights(finished_once)
    assert (home / "run" / "metrics.jsonl").read_bytes() == (finished_once / "metrics.jsonl").read_bytes()


def test_a_disk_that_is_full_for_the_figure(call, home, short, small_files):
    """The run is finished all the same; only its figure is missing."""
    small_files(30_000)
    line = _last_line(call("train", "colored-digits-erm", *short, "--out", "run", drawn=True))
    _free()
    assert line == "Error: run/figure.png: could not be written (File too large); nothing was left behind"
    assert json.loads((home / "run" / "result.json").read_text())["status"] == "finished"
    assert call("train", "--resume", "run", drawn=True).code == 0
    assert (home / "run" / "figure.png").stat().st_size > 30_000


@pytest.fixture
def failing(monkeypatch):
    """Let the fourth step raise something."""

    def fail(error):
        made, advance = itertools.count(), loop.advance

        def step(*given):
            if next(made) == 3:
                raise error
            return advance(*given)

        monkeypatch.setattr(loop, "advance", step)

    return fail


def test_an_interruption_says_how_to_go_on(call, home, short_fishr, failing, monkeypatch, weights, finished_once):
    with monkeypatch.context():
        failing(KeyboardInterrupt())
        options = ("--seed", 3, "--data-dir", "my data", "--device", "cpu", "--format", "json")
        line = _last_line(call("train", *short_fishr, *options, "--out", "run"))
    # What was given is repeated, but for what the run folder holds.
    given = "--data-dir 'my data' --device cpu --format json"
    assert line == f"Error: run: interrupted; resume it with fishr train --resume run {given}"
    monkeypatch.undo()
    monkeypatch.chdir(home)
    assert call(*shlex.split(line.partition("fishr ")[2])).code == 0
    assert weights(home / "run") == weights(finished_once)


def test_what_nobody_foresaw_is_one_line_too(call, short, failing, monkeypatch):
    failing(ZeroDivisionError("division\nby zero"))
    line = _last_line(call("train", "colored-digits-erm", *short, "--out", "run"))
    assert line == "Error: ZeroDivisionError: division by zero (set FISHR_TRACEBACK=1 to see where)"
    monkeypatch.setenv("FISHR_TRACEBACK", "1")
    failing(ZeroDivisionError("division"))
    with pytest.raises(ZeroDivisionError):
        call("train", "colored-digits-erm", *short, "--out", "other")


@pytest.mark.slow
def test_a_reader_that_has_enough(home, forked):
    """``fishr config show | head -1``: no traceback, nothing on stderr."""
    command = [sys.executable, str(ROOT / "cli.py"), "config", "show"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (1, "")
