"""Progress of commands: one way on terminals, one elsewhere, and nothing where a command is quick."""

import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import pytest
from commands.conftest import ANIMALS
from commands.test_report_sweep import make_sweep

from fishr.commands.progress import parts_bar, progress_bar, steps_shown
from fishr.commands.rendering import progress
from fishr.configuration import load
from fishr.errors import RunFailed
from fishr.training import Experiment, run


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[Terminal, StringIO])
def stderr(request, monkeypatch):
    monkeypatch.setattr(sys, "stderr", request.param())
    return sys.stderr


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("fishr.commands.progress._DELAY", 0.0)
    monkeypatch.setattr("fishr.commands.progress._LINE", 0.0)


def test_a_quick_command_shows_nothing(stderr):
    with progress_bar("interrupted", total=3) as bar:
        for _ in range(3):
            bar.update(1)
    assert stderr.getvalue() == ""


@pytest.mark.usefixtures("at_once")
def test_an_interruption_is_a_message(stderr):
    with pytest.raises(RunFailed, match="run: interrupted"), progress_bar("run: interrupted", total=3):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("at_once")
def test_steps_have_names(monkeypatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    with steps_shown("interrupted", 2) as show:
        for name in ("mean", "mean", "variance"):
            show(name)
    shown = re.findall(r"^(\w+: \d/\d) \[", sys.stderr.getvalue(), re.MULTILINE)
    assert shown == ["mean: 0/2", "mean: 0/2", "variance: 1/2"]


@pytest.mark.usefixtures("at_once")
def test_files_have_a_bar_each(monkeypatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    with parts_bar("image", "interrupted") as update:
        for name, total in (("a", 3), ("b", 2)):
            for done in range(total + 1):
                update(name, done, total)
    shown = re.findall(r"^(\w): (\d)/(\d) \[", sys.stderr.getvalue(), re.MULTILINE)
    assert [(name, int(done), int(total)) for name, done, total in shown] == [
        *(("a", done, 3) for done in range(4)),
        *(("b", done, 2) for done in range(3)),
    ]


@pytest.mark.usefixtures("at_once")
def test_a_resumed_run_begins_where_it_goes_on(interrupted, monkeypatch):
    monkeypatch.setattr(sys, "stderr", StringIO())
    folder = Path(interrupted)
    text = (folder / "config.toml").read_text()
    events = run(load(folder / "config.toml", Experiment), folder, experiment_text=text, resume=True)
    with progress(events, folder, 7, "") as show:
        for event in events:
            show(event)
    shown = re.findall(r"^(\d)/7 \[[\d:]+<[\d:]+, +[\d.]+step/s, loss=", sys.stderr.getvalue(), re.MULTILINE)
    assert shown == ["5", "6", "7"]


COMMANDS = (
    "train colored-digits SHORT --keep-checkpoints --out kept",
    "evaluate finished",
    "average finished twin --out mean",
    "analyze finished --samples 20",
    "landscape kept --directions pca --grid 3 --animate",
    "report finished",
    "report sweep",
    "sweep collect sweep",
    "cache features finished -o f.h5",
    "cache gradients f.h5 -o g.h5",
    "cache verify f.h5",
    "cache merge one.h5 other.h5 -o merged.h5",
    "cache images data/animals -o images.h5 --size 8",
    "join head --below finished -o whole",
    "data verify data/animals",
    "bench data data/animals --size 8 --batch 2 --rows 2 --rounds 2",
    "predict animals data/animals/art/cat -o predicted.csv",
)


@pytest.mark.slow
def test_every_command_that_may_last_shows_its_progress(call, finished, animals, home, short_fishr, monkeypatch):
    """The loops of all commands: `fishr COMMAND` reports each unit of its work."""
    make_sweep(home)
    shutil.copytree(finished, "twin")
    (home / "animals.toml").write_text(ANIMALS)
    for command in (
        ("train", "animals.toml", "--out", "animals"),
        ("cache", "features", finished, "--domain", "flip 0.2", "-o", "one.h5"),
        ("cache", "features", finished, "--domain", "gray", "-o", "other.h5"),
        ("cache", "features", finished, "-o", "first.h5"),
        ("train", *short_fishr, "--seed", 3, "--on-features", "first.h5", "--out", "head"),
    ):
        said = call(*command)
        assert said.code == 0, said
    monkeypatch.setattr("fishr.commands.progress._LINE", 0.0)
    monkeypatch.setattr("fishr.data.images.throughput._TURN_SECONDS", 0)
    silent = {}
    for command in COMMANDS:
        words = [word for one in command.split() for word in (short_fishr if one == "SHORT" else [one])]
        said = call(*words)
        if said.code or not re.search(r"\b[1-9]\S*/[1-9]\S* \[[\d:]+<", said.err):
            silent[command] = said
    assert silent == {}
