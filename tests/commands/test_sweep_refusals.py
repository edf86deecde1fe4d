"""Plans and requests that ``fishr sweep`` refuses, and jobs that fail."""

import re

import pytest
from sweep_world import PLAN, WORK, results

pytestmark = pytest.mark.slow


@pytest.fixture
def broken(world, call, in_process):
    """A sweep whose jobs fail: IRM needs two rows of each domain."""
    text = PLAN.replace("batch_size = 8", "batch_size = 1").replace('["ERM", "Fishr"]', '["IRM"]')
    (world / "plan.toml").write_text(text.replace("draws = 1", "draws = 1\ntest_envs = [[0], [1]]"))
    return call("sweep", "run", "plan.toml", "--out", "sweep", *WORK)


def test_failures_are_told_and_retried(broken, call):
    said = broken
    assert said.code == 1
    error = said.err.splitlines()[-1]
    assert re.fullmatch(
        r"Error: sweep: all 2 jobs failed \(first PACS IRM test 0 draw 0 trial 0: IRM: got domains of .*\); see them "
        r"with fishr sweep status sweep --failed, retry them with fishr sweep resume sweep --workers 1 --device cpu "
        r"--retry-failed",
        error,
    )
    shown = call("sweep", "status", "sweep", "--failed").out
    assert shown.count("tried 1×") == 2
    assert len(re.findall(r"^  \| IRM: got domains of ", shown, re.MULTILINE)) == 2
    # Without being told to, nothing is tried again.
    again = call("sweep", "resume", "sweep", *WORK)
    assert (again.code, again.err.count("failed:")) == (1, 0)
    retried = call("sweep", "resume", "sweep", *WORK, "--retry-failed")
    assert (retried.code, retried.err.count("failed: IRM")) == (1, 2)


def test_a_job_that_diverges_is_done(world, call, in_process):
    (world / "plan.toml").write_text(PLAN.replace("batch_size = 8", "batch_size = 8, lr = 3e37"))
    said = call("sweep", "run", "plan.toml", "--out", "sweep", *WORK)
    assert said.code == 0
    assert len(re.findall(r"done in .*, diverged at step \d+$", said.err, re.MULTILINE)) == 8
    assert all(len(lines) == 4 for lines in results(world / "sweep").values())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"datasets": "['PICS']"}, "PICS"),
        ({"algorithms": "['Fisher']"}, "Fisher"),
        ({"test_envs": "[[4]]"}, "test environment: got 4"),
        ({"test_envs": "'pairs'"}, "test_envs"),
        ({"test_envs": "[0]"}, "test_envs[0]: got 0 (a whole number), expected an array"),
        ({"draws": "0"}, "draws: got 0"),
        ({"settings.stepps": "3"}, "settings.stepps"),
        ({"settings.features.PACS": "'absent.h5'"}, "absent.h5: no such file"),
    ],
)
def test_a_plan_that_cannot_run_is_refused(world, refused, change, part):
    options = [text for key, value in change.items() for text in ("--set", f"{key}={value}")]
    refused(world, ("sweep", "run", "plan.toml", "--out", "sweep", *WORK, *options), part)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("run", "absent.toml", "--out", "sweep"), "absent.toml: no such file"),
        (("run", "plan.toml", "--out", "data/features.h5"), "is no sweep; choose another --out"),
        (("run", "plan.toml", "--out", "."), "is no sweep; choose another --out"),
        (("run", "plan.toml", "--out", "s", "--device", "cuda"), "device: got 'cuda'"),
        (("run", "plan.toml", "--out", "s", "--slurm", "time=5"), "--array"),
        (("run", "plan.toml", "--out", "s", "--array", "5"), "--slurm"),
        (("run", "plan.toml", "--out", "s", "--slurm", "tme=5", "--array", "5"), "--slurm: got 'tme'"),
        (("run", "plan.toml", "--out", "s", "--slurm", "time=5", "--array", "5", "--ray", "auto"), "--ray"),
        (("run", "plan.toml", "--out", "s", "--ray", "auto", "--workers", "3"), "--workers"),
        (("resume", "absent"), "absent: no sweep is there"),
        (("resume", "absent", "--part", "3/3"), "part: got '3/3'"),
        (("status", "absent"), "absent: no sweep is there"),
        (("plan", "absent.toml"), "absent.toml: no such file"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(world, refused, arguments, part):
    if "cuda" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device here")
    refused(world, ("sweep", *arguments), part)
