"""No file of the working directory or of a sweep folder runs as code, unless --plugin names it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fishr.data.caches import Section
from fishr.data.caches.feature_cache import write_features

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
# Modules that our processes import, from the standard library, from other packages and from ours.
NAMES = ("json", "torch", "attr", "attrs", "numpy", "pickle", "colorsys", "sitecustomize", "ray", "submitit", "fishr")
PLAN = """
datasets = ["PACS"]
algorithms = ["ERM"]
test_envs = [[0]]
draws = 1
trials = 1
[settings]
steps = 2
hparams = {batch_size = 4}
features.PACS = "features.h5"
"""
OWN = PLAN.replace('"ERM"', '"Mine"') + '[settings.methods.Mine]\npenalty = {kind = "mine:spread"}\nweight = 1.0\n'


def poison(folder):
    """Put a module of each name into a folder; imported from there, it leaves a file "marker"."""
    for name in NAMES:
        text = f"open({str(folder / 'marker')!r}, 'a').write({name!r} + ' ')\n"
        (folder / f"{name}.py").write_text(text)


def marks(folder):
    return [path.read_text() for path in folder.rglob("marker")]


@pytest.fixture
def hostile(home):
    """A plan of one job over a file of features, among modules that nobody asked for."""
    generator, labels = np.random.default_rng(0), np.arange(12) % 2

    def compute(domain, start, stop):
        features = generator.normal(size=(stop - start, 3))
        logits, ids = np.zeros((stop - start, 2)), np.arange(start, stop)
        return {"features": features, "labels": labels[start:stop], "logits": logits, "ids": ids}

    head = {"text": "", "outputs": 2, "parameters": {}}
    sections = [Section(name, "training", len(labels)) for name in "ACPS"]
    (home / "data").mkdir()
    write_features(home / "data" / "features.h5", {"dtype": "float32"}, head, sections, compute, part_rows=len(labels))
    (home / "plan.toml").write_text(PLAN)
    poison(home)
    return home


def test_a_module_of_the_working_directory_does_run_where_nothing_prevents_it(hostile):
    subprocess.run([sys.executable, "-c", "import colorsys"], cwd=hostile, check=True)
    assert marks(hostile) == ["colorsys "]


def test_no_worker_runs_a_file_of_the_folder(hostile, call, in_process, monkeypatch):
    assert call("sweep", "run", "plan.toml", "--out", "sweep", "--device", "cpu").code == 0
    poison(hostile / "sweep")
    (job,) = (hostile / "sweep" / "jobs").iterdir()
    poison(job)
    for name in ("done", "result.json", "results.jsonl"):
        (job / name).unlink()
    monkeypatch.undo()
    monkeypatch.chdir(hostile)
    said = call("sweep", "resume", "sweep", "--workers", 1, "--device", "cpu")
    assert (said.code, marks(hostile)) == (0, []), said


@pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed")
def test_no_task_of_ray_runs_a_file_of_the_folder(hostile, cli):
    said = cli("sweep", "run", "plan.toml", "--out", "sweep", "--ray", "local", "--device", "cpu")
    assert (said.code, marks(hostile)) == (0, []), said


@pytest.mark.skipif(not find_spec("submitit"), reason="submitit is not installed")
@pytest.mark.parametrize("installed", [True, False])
def test_no_task_of_slurm_runs_a_file_of_the_folder(hostile, call, monkeypatch, installed):
    """The script calls the installed program, or the interpreter where there is none."""
    if not installed:
        monkeypatch.setattr(Path, "exists", lambda path: path.name != "fishr" and os.path.exists(path))  # noqa: PTH110
    said = call("sweep", "run", "plan.toml", "--out", "sweep", "--slurm", "time=5", "--array", 1, "--device", "cpu")
    assert said.code == 0, said
    monkeypatch.undo()
    script = (hostile / "sweep" / "slurm" / "array.sh").read_text()
    assert ("-P -c" in script) == (not installed)
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "0"}
    done = subprocess.run(["bash", "-c", script], cwd=hostile, env=environment, capture_output=True, text=True)
    assert (done.returncode, marks(hostile)) == (0, []), done


def test_a_plugin_runs_and_hides_no_other_module(hostile, cli):
    """It may import what lies beside it; what is installed is found first."""
    (hostile / "mine.py").write_text(
        "import colorsys, json\nfrom beside import spread_of\n\ndef spread(seen):\n    return spread_of(seen)\n"
    )
    (hostile / "beside.py").write_text("def spread_of(seen):\n    return seen.domain_losses.var()\n")
    (hostile / "plan.toml").write_text(OWN)
    said = cli("sweep", "run", "plan.toml", "--out", "sweep", "--workers", 1, "--device", "cpu", "--plugin", "mine")
    assert (said.code, marks(hostile)) == (0, []), said
    assert len(list(hostile.glob("sweep/jobs/*/results.jsonl"))) == 1


def test_a_command_starts_no_process_of_multiprocessing(hostile, tmp_path_factory):
    """Python would start it in the working directory. From 3.14 on the lock of a progress bar is enough."""
    program = tmp_path_factory.mktemp("elsewhere") / "program.py"
    start = "import multiprocessing\nfrom fishr.commands import main\nmultiprocessing.set_start_method('forkserver')\n"
    program.write_text(f"{start}main()\n")
    options = ["--set", "steps=2", "--out", "run", "--device", "cpu"]
    subprocess.run([sys.executable, program, "train", "colored-digits", *options], cwd=hostile, check=True)
    assert marks(hostile) == []
