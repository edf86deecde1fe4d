"""Commands as a person calls them: in this process where that is enough, through cli.py where it is not."""

import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from attrs import frozen
from matplotlib.figure import Figure
from PIL import Image
from report_pages import browser, opened, reported  # noqa: F401 (fixtures)
from sweep_world import make_world

from fishr.commands import main

ROOT = Path(__file__).resolve().parents[2]
# Seven steps of a tiny network on few samples, over the end of a warm-up.
SHORT = {
    "steps": "7",
    "evaluate_every": "3",
    "checkpoint_every": "2",
    "featurizer.widths": "[8]",
    "data.copies": "1",
}
WARM_UP = {"objective.penalty.fishr.schedule.at": "4"}

ANIMALS = """
name = "animals"
steps = 1
[data]
kind = "HeldOut"
test = [0]
holdout_fraction = 0.5
source = { kind = "ImageFolders", folder = "animals", size = 32, augment = false }
[featurizer]
kind = "MNISTCNN"
[head]
kind = "LinearHead"
[loss]
kind = "CrossEntropy"
[objective]
[optimizer]
kind = "Adam"
lr = 0.001
[batches]
kind = "Minibatch"
size = 2
"""


@frozen
class Said:
    """What a command left: exit code and texts."""

    code: int
    out: str
    err: str


def _set(settings):
    return [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]


def _plain(figure, *arguments, save=Figure.savefig, **options):
    figure.set_layout_engine("none")
    save(figure, *arguments, **options)


def _blank(figure, *arguments, save=Figure.savefig, **options):
    save(Figure(figure.get_size_inches()), *arguments, **options)


def _call(*arguments, drawn=False):
    out, err = StringIO(), StringIO()
    # Layout and drawing take most of a short command's time: tests/plots has both, and one test of each command draws.
    pictures = patch.object(Figure, "savefig", _plain if drawn else _blank)
    with pictures, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    return Said(exit_.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def without_progress(monkeypatch):
    """No line of progress in this process, however slow the machine is."""
    monkeypatch.setattr("fishr.commands.progress._LINE", float("inf"))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def animals(home):
    """Two environments of two classes below the data folder."""
    for number in range(8):
        environment, name = ("art", "photo")[number % 2], ("cat", "dog")[number // 4]
        path = home / "data" / "animals" / environment / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.random.default_rng(number).integers(0, 256, (9 + number, 12, 3), np.uint8)
        Image.fromarray(colours).save(path)
    return home / "data" / "animals"


@pytest.fixture(scope="session")
def call_anywhere():
    """Call a command in this process and in whatever working directory there is."""
    return _call


@pytest.fixture
def call(home):
    """Call a command in this process, in an empty working directory, with blank pictures unless they are ``drawn``."""
    return _call


@pytest.fixture
def cli(home):
    """Call a command through cli.py, in an interpreter of its own."""

    def run(*arguments):
        command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=home, timeout=120)
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def short():
    """Options that make a recipe of Colored Digits a run of seven small steps."""
    return _set(SHORT)


@pytest.fixture(scope="session")
def short_fishr():
    """The same for a recipe with Fishr, whose warm-up then ends at step 4."""
    return _set(SHORT | WARM_UP)


@pytest.fixture(scope="package")
def finished_once(tmp_path_factory, short_fishr):
    """A finished run, for reading only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    said = _call("train", *short_fishr, "--seed", 3, "--out", folder)
    assert said.code == 0, said
    return folder


@pytest.fixture
def finished(finished_once, home):
    """A copy of a finished run, called "finished", in the working directory."""
    return Path(shutil.copytree(finished_once, home / "finished").name)


@pytest.fixture
def interrupted(finished, cut):
    """A run that was killed after its first checkpoint."""
    return cut(finished)


@pytest.fixture
def cut(call, short_fishr):
    """Put into a folder what a run of the same options leaves when it dies in its fourth step."""
    from fishr.configuration import load
    from fishr.training import Experiment, Stepped, run

    def cutting(folder):
        text = (folder / "config.toml").read_text()
        shutil.rmtree(folder)
        going = run(load_text(text), folder, experiment_text=text)
        for event in going:
            if isinstance(event, Stepped) and event.state.step == 4:
                break
        going.close()
        return folder

    def load_text(text):
        file = Path("as-it-was.toml")
        file.write_text(text)
        experiment = load(file, Experiment)
        file.unlink()
        return experiment

    return cutting


@pytest.fixture
def snapshot():
    """Every file of a folder with its bytes and its time, every folder with its name."""

    def look(folder):
        return {
            str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }

    return look


@pytest.fixture
def refused(snapshot, monkeypatch, call):
    """Call a command in a folder, and hold it to the form of a refusal: one line, exit code 2, nothing changed."""
    # Python itself would keep a plugin's byte code beside it.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def check(world, arguments, part):
        monkeypatch.chdir(world)
        before = snapshot(world)
        said = call(*arguments)
        assert said.code == 2, said
        assert re.fullmatch(r"Error: [^\n]+\n", said.err), said.err
        assert said.out == ""
        assert part in said.err
        assert "Traceback" not in said.err
        assert snapshot(world) == before

    return check


@pytest.fixture
def weights():
    """The bytes of all weights of a run folder's checkpoint."""

    def read(folder):
        tree = torch.load(folder / "checkpoint.pt", weights_only=True)
        return {name: tensor.numpy().tobytes() for name, tensor in tree["parameters"].items()}

    return read


@pytest.fixture
def world(home):
    """A plan of eight jobs over a file of features, in the working directory."""
    return make_world(home)


@pytest.fixture
def in_process(monkeypatch):
    """Jobs run in this process: that workers do the same is tested of the pool."""
    from fishr.sweeps.execution import attempt
    from fishr.sweeps.job_events import settle

    def run_here(jobs, conditions, slots, plugins=()):
        for job in jobs:
            yield settle(job, 1, attempt(job, conditions), conditions.folder)

    monkeypatch.setattr("fishr.sweeps.pool.run_local", run_here)


@pytest.fixture
def moved(call, home, animals):
    """A run whose data folder is gone, and its images elsewhere."""
    (home / "run.toml").write_text(ANIMALS)
    said = call("train", "run.toml", "--out", "run", "--device", "cpu")
    assert said.code == 0, said
    shutil.move(home / "data" / "animals", home / "photos")
    return home


@pytest.fixture(scope="package")
def made():
    """Call a command that must succeed."""

    def called(*arguments):
        said = _call(*arguments)
        assert said.code == 0, said
        return said

    return called


@pytest.fixture(scope="package")
def recorded_once(tmp_path_factory, short, short_fishr, made):
    """Two short runs that recorded statistics; for reading only."""
    home = tmp_path_factory.mktemp("analyzed")
    for name, recipe, options in (("erm", "colored-digits-erm", short), ("mine", "colored-digits", short_fishr)):
        made("train", recipe, *options, "--record-statistics", "every=3", "--out", home / name)
    return home


@pytest.fixture(scope="package")
def cached_once(tmp_path_factory, recorded_once, made):
    """The features of the second of them, for reading only."""
    path = tmp_path_factory.mktemp("cached") / "mine-features.h5"
    made("cache", "features", recorded_once / "mine", "-o", path)
    return path


@pytest.fixture(scope="package")
def measured_once(finished_once, tmp_path_factory, made):
    """A run folder with statistics, an analysis and two landscapes."""
    folder = tmp_path_factory.mktemp("runs") / "measured"
    shutil.copytree(finished_once, folder)
    for command in (
        ["analyze", folder, "--samples", 20],
        ["landscape", folder, "--grid", 5],
        ["landscape", folder, "--directions", "line", "--grid", 5, "--lines", 2],
    ):
        made(*command)
    return folder


@pytest.fixture
def measured(measured_once, home):
    return Path(shutil.copytree(measured_once, home / "measured").name)
