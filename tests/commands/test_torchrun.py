"""Training by several processes that torchrun begins: the same run, on several machines, killed and gone on with."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
forked = pytest.mark.usefixtures("forked")

ROOT = Path(__file__).resolve().parents[2]
MORTAL = '''
import os
import signal

from attrs import frozen


@frozen
class Mortal:
    """Adds nothing, and kills its rank without a word where the environment says so."""

    step: int

    def init(self, problem):
        return ()

    def __call__(self, seen, state, step):
        if step == self.step and os.environ.get("KILLED") == os.environ.get("RANK", "none"):
            os.kill(os.getpid(), signal.SIGKILL)
        return 0 * seen.domain_losses.sum(), state
'''
PLUGIN = ("--plugin", "mortal")
KILL = (*PLUGIN, "--set", "objective.penalty.mortal.kind=mortal:Mortal", "--set", "objective.penalty.mortal.step=5")


def begin(where, *arguments, ranks=2, launcher=("--standalone",), **environment):
    """torchrun, not waited for."""
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, "--nproc-per-node", str(ranks)]
    command += ["--monitor-interval", "0.2", str(ROOT / "cli.py"), *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(where), "GLOO_SOCKET_IFNAME": "lo"} | environment
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=where, env=variables
    )


def torchrun(*arguments, **settings):
    process = begin(*arguments, **settings)
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


def errors(err):
    return [line for line in err.splitlines() if line.startswith("Error:")]


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(folder, other):
    lines, others = metrics(folder), metrics(other)
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    for line, wanted in zip(lines, others, strict=True):
        if "loss" in line:
            assert line["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
            assert line["terms"]["fishr"] == pytest.approx(wanted["terms"]["fishr"], rel=1e-3)
        else:
            got, expected = ([score["accuracy"] for score in entry["scores"]] for entry in (line, wanted))
            assert got == pytest.approx(expected, abs=0.01)


@pytest.fixture
def alone(home, call, short):
    """The folder of the same run in one process."""
    assert (
        call("train", *short, "--set", "batches.kind=Minibatch", "--set", "batches.size=30", "--out", "alone").code == 0
    )
    return home / "alone"


MINIBATCH = ("--set", "batches.kind=Minibatch", "--set", "batches.size=30")


def test_two_ranks_are_the_run_of_one_process(home, alone, short):
    code, out, err = torchrun(home, "train", *short, *MINIBATCH, "--out", "together", "--format", "json")
    assert (code, errors(err)) == (0, [])
    result = json.loads(out)
    assert result == json.loads((home / "together" / "result.json").read_text())
    assert (result["ranks"], json.loads((alone / "result.json").read_text())["ranks"]) == (2, 1)
    assert_same_run(home / "together", alone)
    names = {"checkpoint.pt", "config.toml", "figure.png", "metrics.jsonl", "result.json"}
    assert {path.name for path in (home / "together").iterdir()} == names
    assert err.count("step 3/7") == 1


@forked
def test_two_machines_are_too_and_only_the_first_has_the_folder(home, alone, short):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    command = ("train", *short, *MINIBATCH, "--out", "together")
    nodes = [
        begin(where, *command, ranks=1, launcher=("--nnodes", "2", "--node-rank", str(node), "--master-port", port))
        for node, where in enumerate((home, elsewhere))
    ]
    said = [node.communicate(timeout=180) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert_same_run(home / "together", alone)
    assert "run: together" in said[0][0]
    assert said[1][0] == ""
    assert list(elsewhere.iterdir()) == []


@forked
@pytest.mark.parametrize("killed", [0, 1])
def test_a_rank_that_dies_ends_the_run_with_a_line_and_any_number_goes_on(home, call, short, killed):
    (home / "mortal.py").write_text(MORTAL)
    options = (*short, *KILL, "--set", "checkpoint_every=2")
    code, _, err = torchrun(home, "train", *options, "--out", "together", KILLED=str(killed))
    assert code != 0
    (line,) = errors(err)
    survivor = 1 - killed
    assert line.startswith(f"Error: rank {survivor} of 2: another process of the run is gone"), err
    assert line.endswith("; resume it with --resume together --plugin mortal")
    # The first rank keeps its last step; where it is the one that dies, its last checkpoint is there.
    checkpoint = torch.load(home / "together" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == (5 if killed else 4)

    assert call("train", *options, "--out", "uninterrupted").code == 0
    if killed:
        assert call("train", "--resume", "together", *PLUGIN).code == 0
    else:
        assert torchrun(home, "train", "--resume", "together", *PLUGIN, ranks=3)[0] == 0
    assert_same_run(home / "together", home / "uninterrupted")


@forked
def test_bad_input_is_one_line_and_no_rank_waits(home, short):
    (home / "there").mkdir()
    code, _, err = torchrun(home, "train", *short, "--out", "there")
    assert code != 0
    assert errors(err) == ["Error: there: exists already; choose another name"]
    code, _, err = torchrun(home, "train", *short, "--set", "steps=0", "--out", "new")
    assert code != 0
    assert len(errors(err)) == 1
    assert not (home / "new").exists()
