"""``fishr sweep plan``, ``run``, ``status`` and ``resume``."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from sweep_world import PLAN, WORK, make_world, results

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def swept_once(tmp_path_factory):
    """A finished sweep, for reading only, run by a scheduler and a worker; and what it printed."""
    place = make_world(tmp_path_factory.mktemp("swept"))
    command = [sys.executable, ROOT / "cli.py", "sweep", "run", "plan.toml", "--out", "sweep", *WORK]
    said = subprocess.run(list(map(str, command)), cwd=place, capture_output=True, text=True)
    return place, said


@pytest.fixture
def swept(swept_once, home, in_process):
    """A copy of a finished sweep, called "sweep", in the working directory, with its plan and data."""
    shutil.copytree(swept_once[0], home, dirs_exist_ok=True)
    return home


def test_plan_counts(world, call):
    said = call("sweep", "plan", "plan.toml", "--no-calibration")
    assert (said.code, said.err) == (0, "")
    rows = [re.split(r"\s{2,}", line.strip()) for line in said.out.splitlines() if line and "---" not in line]
    assert rows == [
        ["data set", "algorithm", "jobs", "steps", "evaluations"],
        # After updates 1, 5, 9 and 10.
        ["PACS", "ERM", "4", "40", "16"],
        ["PACS", "Fishr", "4", "40", "16"],
        ["total", "8", "80", "32"],
    ]


def test_plan_estimates(world, call, monkeypatch):
    monkeypatch.setattr("fishr.sweeps.estimates._ENOUGH", 0.05)
    said = call("sweep", "plan", "plan.toml", "--workers", 2, "--device", "cpu", "--format", "json")
    found = json.loads(said.out)
    assert found["workers"] == 2
    assert [row["jobs"] for row in found["rows"]] == [4, 4]
    assert found["total"]["seconds"] == pytest.approx(sum(row["seconds"] for row in found["rows"]))
    assert 0 < found["total"]["seconds"] < 60
    text = call("sweep", "plan", "plan.toml", "--workers", 2, "--device", "cpu", "--set", "draws=2").out
    assert "time: estimated, with 2 workers\n" in text
    assert re.search(r"\ndisk: estimated, at most while they run; 0\.\d MB stay\n", text)
    assert re.search(r"total +16 +160 +64 +\d+\.\d s +0\.\d MB", text)


def test_the_example_is_the_benchmark(call):
    """Twenty draws × three trials × three test environments of 5,001 steps, for each of two algorithms."""
    said = call("sweep", "plan", ROOT / "examples" / "sweep.toml", "--no-calibration", "--format", "json")
    assert json.loads(said.out)["total"] == {
        **{"dataset": "total", "algorithm": "", "jobs": 360, "seconds": None, "footprint": None},
        **{"steps": 360 * 5001, "evaluations": 360 * 51},
    }


def test_run_leaves_its_results_and_a_table(swept_once):
    world, said = swept_once
    assert said.returncode == 0
    # On a slow machine there is progress every ten seconds.
    assert re.fullmatch(r"(\d/8 \[\d\d:\d\d<.*job.*\]\n)*", said.stderr)
    assert re.search(r"total +8 +8 +0 +0 +0 +\d+\.\d%\n\n8 of 8 jobs done\n$", said.stdout)
    assert len(results(world / "sweep")) == 8
    assert all(len(lines) == 4 for lines in results(world / "sweep").values())


def test_what_is_done_stays_as_it_is(swept, call, snapshot):
    before = snapshot(swept / "sweep" / "jobs")
    for command in (("run", "plan.toml", "--out", "sweep"), ("resume", "sweep")):
        said = call("sweep", *command, *WORK)
        assert (said.code, said.err) == (0, "")
        assert "8 of 8 jobs done" in said.out
    # Nor are the data of finished jobs needed.
    (swept / "data" / "features.h5").unlink()
    assert call("sweep", "resume", "sweep", *WORK).code == 0
    assert snapshot(swept / "sweep" / "jobs") == before


def test_parts_are_the_whole(swept, call):
    call("sweep", "run", "plan.toml", "--out", "parts", *WORK, "--set", "draws=1", "--slurm", "time=5", "--array", 3)
    for part, jobs in (("2/3", 2), ("0/3", 3), ("1/3", 3)):
        said = call("sweep", "resume", "parts", "--part", part, *WORK)
        assert said.code == 0
        assert f"{jobs} of {jobs} jobs done" in said.out
    assert results(swept / "parts") == results(swept / "sweep")


def test_status_is_read_from_files(swept, call):
    (next((swept / "sweep" / "jobs").iterdir()) / "done").unlink()
    said = call("sweep", "status", "sweep")
    assert said.code == 0
    assert re.search(r"7 of 8 jobs done; about \d+\.\d s left with 1 at work\n$", said.out)
    found = json.loads(call("sweep", "status", "sweep", "--format", "json").out)
    assert (found["total"]["done"], found["total"]["waiting"], found["failures"]) == (7, 1, [])
    assert call("sweep", "status", "sweep", "--failed").out.endswith("no job failed\n")


def test_status_watches_until_the_end(swept, call):
    said = call("sweep", "status", "sweep", "--watch")
    assert said.code == 0
    assert said.out.count("8 of 8 jobs done") == 1


def test_status_and_tables_need_no_code_of_the_plan(swept, call):
    """The same with Fishr as a method of one's own, whose module is not there."""
    before = call("sweep", "collect", "sweep").out
    for path in [swept / "sweep" / "plan.toml", *swept.glob("sweep/jobs/*/job.toml")]:
        own = '\n[settings.methods.Mine.penalty]\nkind = "no_such_module:Penalty"\n'
        path.write_text(path.read_text().replace('"Fishr"', '"Mine"') + own)
    for path in swept.glob("sweep/jobs/*/results.jsonl"):
        path.write_text(path.read_text().replace('"Fishr"', '"Mine"'))
    assert "pass --plugin no_such_module" in call("sweep", "resume", "sweep").err
    said = call("sweep", "status", "sweep")
    assert (said.code, said.err) == (0, "")
    assert re.search(r"PACS +Mine +4 +4 +0 +0 +0 ", said.out)
    said = call("sweep", "collect", "sweep")
    assert said.code == 0
    assert re.sub(" +", " ", said.out) == re.sub(" +", " ", before.replace("Fishr", "Mine"))


@pytest.fixture
def one_job(world, call, in_process):
    """Run a plan of a single job, and return its folder."""

    def run(**settings):
        plan = PLAN.replace('["ERM", "Fishr"]', '["ERM"]').replace("draws = 1", "draws = 1\ntest_envs = [[1]]")
        (world / "plan.toml").write_text(plan)
        given = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
        assert call("sweep", "run", "plan.toml", "--out", "sweep", *WORK, *given).code == 0
        (job,) = Path("sweep", "jobs").iterdir()
        return job

    return run


def test_kept_weights_can_be_evaluated_and_analysed(one_job, call):
    """And the tables name the environments."""
    job = one_job(keep="weights")
    said = call("evaluate", job)
    assert said.code == 0, said
    rows = [re.split(r"\s{2,}", line)[:2] for line in said.out.splitlines() if line.startswith("env")]
    training = [[f"env{i}_in ({'ACPS'[i]})", "training"] for i in (0, 2, 3)]
    rest = ["env1_in (C)", *(f"env{i}_out ({name})" for i, name in enumerate("ACPS"))]
    assert rows == [*training, *([name, "evaluation"] for name in rest)]
    found = json.loads(call("evaluate", job, "--format", "json").out)["scores"]
    assert (found[0]["name"], found[0]["environment"]) == ("env0_in", "A")
    recorded = json.loads((job / "results.jsonl").read_text().splitlines()[-1])
    assert {f"{score['name']}_acc": score["accuracy"] for score in found}.items() <= recorded.items()
    said = call("analyze", job)
    assert said.code == 0, said
    assert "env2_in (P)" in said.out


def test_results_alone_say_what_is_missing(one_job, call):
    job = one_job()
    assert not (job / "checkpoint.pt").exists()
    for command in (("evaluate", job), ("analyze", job), ("train", "--resume", job)):
        said = call(*command)
        assert (said.code, said.out) == (2, "")
        assert said.err == (
            f'Error: {job}: its weights were not kept; set keep = "weights" in the plan of its sweep, '
            "remove this folder and run the sweep again\n"
        )


def test_some_failures_are_counted(swept, call):
    job = next((swept / "sweep" / "jobs").iterdir())
    for name in ("done", "results.jsonl", "result.json"):
        (job / name).unlink()
    (job / "checkpoint.pt").write_bytes(b"damaged")
    said = call("sweep", "resume", "sweep", *WORK)
    assert said.code == 1
    assert "Error: sweep: 1 of 8 jobs failed (first PACS" in said.err
    assert "checkpoint.pt" in said.err
    (job / "checkpoint.pt").unlink()
    said = call("sweep", "resume", "sweep", *WORK, "--retry-failed")
    assert said.code == 0
    assert "8 of 8 jobs done" in said.out


def test_a_plan_takes_anothers_place_and_keeps_what_is_done(swept, call):
    before = results(swept / "sweep")
    said = call("sweep", "run", "plan.toml", "--out", "sweep", *WORK, "--set", "draws=2", "--replace-plan")
    assert said.code == 0
    assert said.err == ""
    after = results(swept / "sweep")
    assert {name: after[name] for name in before} == before


def test_slurm_writes_a_script_and_submits_nothing(world, call):
    said = call(
        *("sweep", "run", "plan.toml", "--out", "sweep", "--slurm", "partition=gpu,time=60,cpus_per_task=4"),
        *("--array", 8, "--workers", 4, "--retry-failed"),
    )
    assert (said.code, said.out, said.err) == (0, "sbatch sweep/slurm/array.sh\n", "")
    text = (world / "sweep" / "slurm" / "array.sh").read_text()
    assert "#SBATCH --array=0-7%8" in text
    folder = re.escape(shlex.quote(str(world / "sweep")))
    assert re.search(rf'sweep resume {folder} --part "\$SLURM_ARRAY_TASK_ID"/8 --workers 4 --retry-failed\n', text)
    assert list((world / "sweep" / "jobs").iterdir()) == []


def test_ctrl_c_is_one_line_and_loses_nothing(swept, call, forked):
    """The terminal interrupts the scheduler and its workers alike."""
    (swept / "my data").mkdir()
    (swept / "data" / "features.h5").rename(swept / "my data" / "features.h5")
    command = [sys.executable, str(ROOT / "cli.py"), "sweep", "run", "plan.toml", "--out", "stopped", "--workers", "2"]
    # So many steps that no machine ends them before the interruption.
    with subprocess.Popen(
        [*command, "--device", "cpu", "--data-dir", "my data", "--set", "settings.steps=100000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=swept,
        start_new_session=True,
    ) as process:
        try:
            while not list(swept.glob("stopped/jobs/*/metrics.jsonl")) and process.poll() is None:
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=300)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    hint = "fishr sweep resume stopped --workers 2 --data-dir 'my data' --device cpu"
    assert err.splitlines()[-1] == f"Error: stopped: interrupted; resume it with {hint}"
    assert "Traceback" not in err
    assert out == ""
    # Told to do less by a plan of fewer steps, it still has its place.
    assert (swept / "stopped" / "plan.toml").exists()


def test_another_plan_in_the_folder_is_refused(swept, refused):
    arguments = ("sweep", "run", "plan.toml", "--out", "sweep", "--set", "settings.steps=11")
    refused(swept, arguments, "settings.steps: the folder has 10, the plan given has 11")


def test_two_sweeps_in_one_folder_are_refused(swept, refused, monkeypatch):
    from fishr import locks

    monkeypatch.setattr(locks, "_PATIENCE", 0.0)
    with locks.locked(swept / "sweep" / locks.LOCK, swept, "busy"):
        refused(swept, ("sweep", "resume", "sweep"), "another process works on this sweep")
