"""Progress of commands: one way on terminals, one elsewhere, and nothing where a command is quick."""

import re
import sys
from io import StringIO
from pathlib import Path

import pytest

from fishr.commands.data import _bar
from fishr.commands.rendering import progress
from fishr.commands.shared import progress_bar, steps_shown
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
    monkeypatch.setattr("fishr.commands.shared._DELAY", 0.0)
    monkeypatch.setattr("fishr.commands.shared._LINE", 0.0)


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
    with _bar("image", "interrupted") as update:
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
