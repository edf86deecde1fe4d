"""``fishr average``: means of runs and of a sweep's jobs, used by the other commands."""

import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from fishr.configuration import load
from fishr.sweeps.execution import Conditions, attempt
from fishr.sweeps.folder import sweep_folder
from fishr.sweeps.plan import Plan
from fishr.training import Experiment

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PLAN = """
datasets = ["Rings"]
algorithms = ["ERM", "Fishr"]
test_envs = [[1], [2]]
draws = 2
trials = 1
keep = "weights"
[settings]
steps = 4
evaluate_every = 2
data_seed = 0
featurizer = { kind = "MLP", widths = [] }
hparams = { batch_size = 8 }
[settings.own.Rings]
environments = ["quiet", "noisy", "turned"]
data = { kind = "mine:Rings", samples = 40 }
"""
MINE = ("--plugin", "mine")


@pytest.fixture(scope="module")
def world(tmp_path_factory, call_anywhere):
    """A finished sweep that kept its weights."""
    folder = tmp_path_factory.mktemp("averages")
    shutil.copy(EXAMPLES / "mine.py", folder)
    (folder / "plan.toml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "dont_write_bytecode", True)
        plan = load("plan.toml", Plan, plugins=("mine",))
        with sweep_folder(Path("sweep"), plan, plugins=("mine",)):
            assert all(attempt(job, Conditions(Path("sweep"), keep=plan.keep)).done for job in plan.jobs())
        for name in ("one", "two"):
            rate = {"one": "0.01", "two": "0.1"}[name]
            said = call_anywhere(
                "train", "colored-digits-erm", "--out", name, "--steps", "2", "--set", f"optimizer.lr={rate}"
            )
            assert said.code == 0, said
        yield folder
    sys.modules.pop("mine", None)


@pytest.fixture
def here(world, monkeypatch):
    monkeypatch.chdir(world)
    return world


def head(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["parameters"]["head.weight"]


def test_runs_are_averaged_evaluated_and_exported(here, tmp_path, call_anywhere):
    soup = tmp_path / "soup"
    said = call_anywhere("average", "one", "two", "--out", soup)
    assert (said.code, said.err) == (0, ""), said
    assert said.out.splitlines()[2].split() == ["one", "0.5"]
    assert said.out.splitlines()[-1] == f"uniform soup: {soup}"
    torch.testing.assert_close(head(soup), (head(here / "one") + head(here / "two")) / 2)
    said = call_anywhere("evaluate", soup, "--resamples", "0", "--format", "json")
    assert json.loads(said.out)["step"] == 2, said
    assert call_anywhere("export", soup, "-o", tmp_path / "soup.safetensors").code == 0
    said = call_anywhere("average", "one", "two", "--out", tmp_path / "between", "--alpha", "0.25", "--format", "json")
    assert [one["share"] for one in json.loads(said.out)["runs"]] == [0.75, 0.25]
    said = call_anywhere("average", "one", "--out", tmp_path / "near", "--alpha", "0.9")
    assert [line.split()[:3] for line in said.out.splitlines()[2:4]] == [
        ["one", "first", "0.1"],
        ["one", "last", "0.9"],
    ]


def test_jobs_of_a_sweep_are_averaged(here, tmp_path, call_anywhere):
    for soup, count in (("uniform", 4), ("greedy", 4)):
        out = tmp_path / soup
        options = ("--test-env", "2", "--soup", soup, "--format", "json", "--device", "cpu")
        said = call_anywhere("average", "sweep", "--out", out, *options, *MINE)
        assert said.code == 0, said
        found = json.loads(said.out)
        assert (len(found["runs"]), found["form"]) == (count, f"{soup} soup")
        jobs = [tomllib.loads((Path(one["run"]) / "job.toml").read_text()) for one in found["runs"]]
        assert all(job["test_envs"] == [2] for job in jobs)
        assert sum(job["algorithm"] == "Fishr" for job in jobs) == 2
        mean = torch.stack([head(Path(one["run"])) * one["share"] for one in found["runs"]]).sum(0)
        torch.testing.assert_close(head(out), mean)
    options = ("--dataset", "Rings", "--algorithm", "ERM", "--test-env", "1", "--trial-seed", "0", "--format", "json")
    said = call_anywhere("average", "sweep", "--out", tmp_path / "erm", *options, *MINE)
    jobs = [Path(one["run"]) for one in json.loads(said.out)["runs"]]
    assert len(jobs) == 2
    shutil.copytree(here / "sweep", tmp_path / "sweep")
    done = tmp_path / jobs[0] / "done"
    done.write_text(json.dumps(json.loads(done.read_text()) | {"diverged": 3}))
    said = call_anywhere("average", tmp_path / "sweep", "--out", tmp_path / "rest", *options, *MINE)
    assert (said.code, "got 1, expected two or more" in said.err) == (2, True), said


@pytest.mark.parametrize(("arguments", "part"), [
    (["one", "--out", "soup"], "got 1, expected two or more"),
    (["one", "two", "--out", "two"], "two: exists already"),
    (["one", "two", "--out", "soup", "--alpha", "2"], "alpha: got 2.0"),
    (["one", "two", "one", "--out", "soup", "--alpha", "0.5"], "--alpha: got 3 runs and a uniform soup"),
    (["one", "two", "--out", "soup", "--soup", "greedy", "--alpha", "0.5"], "--alpha: got 2 runs and a greedy soup"),
    (["one", "two", "--out", "soup", "--test-env", "1"], "--test-env: got it without a sweep"),
    (["one", "two", "--out", "soup", "--soup", "greedy"], "no held-out part of a training environment"),
    (["one", "nothing", "--out", "soup"], "nothing: not a run folder"),
    (["sweep", "--out", "soup", *MINE], "Rings test 1, Rings test 2"),
    (["sweep", "--out", "soup", "--trial-seed", "1", *MINE], "sweep: no job that is done has these options"),
    (["sweep", "one", "--out", "soup", "--test-env", "1", *MINE], "one: head.weight has shape (1, 390), in sweep"),
])  # fmt: skip
def test_refusals(world, refused, arguments, part):
    refused(world, ["average", *arguments], part)


def test_a_mean_neither_resumes_nor_is_overwritten(here, tmp_path, call_anywhere):
    soup = tmp_path / "soup"
    assert call_anywhere("average", "one", "two", "--out", soup).code == 0
    before = (soup / "checkpoint.pt").read_bytes()
    for arguments in (("average", "one", "two", "--out", soup), ("train", "--resume", soup)):
        said = call_anywhere(*arguments)
        assert (said.code, said.err.count("\n")) == (2, 1), said
    assert (soup / "checkpoint.pt").read_bytes() == before


def test_means_of_draws_are_rows_of_tables(here, tmp_path, call_anywhere):
    """Each cell is the accuracy, by hand, of the mean of two linear heads on the test environment."""
    soups, options = tmp_path / "soups", ("--device", "cpu", "--format", "json", *MINE)
    said = call_anywhere("sweep", "average", "sweep", "--out", soups, *options)
    assert said.code == 0, said
    found = json.loads(said.out)
    assert [(one["key"]["algorithm"], *one["key"]["test_envs"]) for one in found] == [
        *(("ERM, uniform soup", 1), ("ERM, uniform soup", 2), ("Fishr, uniform soup", 1), ("Fishr, uniform soup", 2))
    ]
    for one in found:
        place = next(path.parent for path in soups.glob("jobs/*/results.jsonl") if _args(path) == one["key"])
        runs = [Path(run["run"]) for run in json.loads((place / "average.json").read_text())["runs"]]
        assert one["runs"] == len(runs) == 2
        trees = [torch.load(run / "checkpoint.pt", weights_only=True)["parameters"] for run in runs]
        weight, bias = (sum(tree[name] for tree in trees) / 2 for name in ("head.weight", "head.bias"))
        domains = load(runs[0] / "config.toml", Experiment, (), ("mine",)).data(0, None)
        tested = domains.evaluation[0]
        assert tested.name == f"env{one['key']['test_envs'][0]}_in"
        right = (tested.inputs @ weight.T + bias).argmax(1) == tested.labels
        assert one["test"] == pytest.approx(right.double().mean().item(), abs=1e-12)
    said = call_anywhere("sweep", "collect", "sweep", soups, "--selection", "training", "--as", "json")
    (table, _) = json.loads(said.out)["tables"]
    rows = {row["algorithm"]: row for row in table["rows"]}
    assert {"ERM", "Fishr", "ERM, uniform soup", "Fishr, uniform soup"} == set(rows)
    assert rows["ERM, uniform soup"]["cells"][1]["mean"] == pytest.approx(100 * found[0]["test"])
    # The same command goes on where it was.
    before = {path: path.stat().st_mtime_ns for path in soups.rglob("*.pt")}
    (next(iter(before)).parent / "done").unlink()
    assert json.loads(call_anywhere("sweep", "average", "sweep", "--out", soups, *options).out) == found
    assert {path: path.stat().st_mtime_ns for path in soups.rglob("*.pt")} == before
    said = call_anywhere("sweep", "average", "sweep", "--out", soups, "--soup", "greedy", *options)
    assert [1 <= one["runs"] <= 2 for one in json.loads(said.out)] == [True] * 4


def _args(path):
    names = ("dataset", "algorithm", "test_envs", "hparams_seed", "trial_seed")
    args = json.loads(path.read_text())["args"]
    return {name: args[name] for name in names}


def test_draws_that_are_not_done_or_diverged_make_no_row(here, tmp_path, call_anywhere):
    shutil.copytree(here / "sweep", tmp_path / "sweep")
    first, second = sorted(tmp_path.glob("sweep/jobs/*/done"))[:2]
    first.unlink()
    second.write_text(json.dumps(json.loads(second.read_text()) | {"diverged": 3}))
    said = call_anywhere("sweep", "average", tmp_path / "sweep", "--out", tmp_path / "soups", "--device", "cpu", *MINE)
    assert said.code == 0, said
    assert "1 of 2 draws are not done" in said.out
    assert "1 of 2 draws diverged" in said.out
    assert len(list(tmp_path.glob("soups/jobs/*"))) in (2, 3)
    assert said.out.endswith(f"means: {tmp_path / 'soups'}\n")
