"""``reproduce``: methods × restarts, resumable restart by restart, beside what was published."""

import itertools
import json
from statistics import fmean, pstdev

import attrs
import pytest

from fishr.models.featurizers import MLP
from fishr.protocols import colored_digits
from fishr.reproductions import REPRODUCTIONS
from fishr.training import loop

pytestmark = pytest.mark.slow


def _quick(method):
    return attrs.evolve(
        colored_digits(method), steps=4, evaluate_every=2, checkpoint_every=1, featurizer=MLP(widths=(8,))
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The table of digits from four steps of a tiny network, with two restarts."""
    digits = attrs.evolve(REPRODUCTIONS["colored-digits"], recipe=_quick, restarts=2)
    mnist = attrs.evolve(REPRODUCTIONS["colored-mnist"], recipe=_quick)
    monkeypatch.setattr("fishr.reproductions.REPRODUCTIONS", {"colored-digits": digits, "colored-mnist": mnist})


@pytest.fixture
def steps(monkeypatch):
    """How many steps were made, and a way to die before one."""

    class Counter:
        made = 0
        last = None

        class Died(BaseException):
            pass

    def counted(*given):
        if Counter.made == Counter.last:
            raise Counter.Died
        Counter.made += 1
        return advance(*given)

    advance = loop.advance
    monkeypatch.setattr(loop, "advance", counted)
    return Counter


def _results(folder, method):
    """Train, reversed and gray of every restart, in percent, straight from the files."""
    columns = []
    for path in sorted(folder.glob(f"{method}-*/result.json")):
        first, second, reversed_, gray = json.loads(path.read_text())["scores"]
        assert (reversed_["name"], gray["name"]) == ("reversed", "gray")
        pair = (100 * first["accuracy"], 100 * second["accuracy"])
        columns.append((fmean(pair), 100 * reversed_["accuracy"], 100 * gray["accuracy"]))
    return list(zip(*columns, strict=True))


def test_the_table(call, home):
    said = call("reproduce", "colored-digits", "--methods", "erm, fishr", drawn=True)
    assert said.code == 0
    folder = home / "runs" / "reproduce-colored-digits"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["erm-0", "erm-1", "figure.png", "fishr-0", "fishr-1", "table.md"]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    text, source, figure = said.out.rsplit("\n\n", 1)[0], *said.out.rsplit("\n\n", 1)[1].splitlines()
    assert (folder / "table.md").read_text() == f"{text}\n"
    assert (source, figure) == ("published: nothing published", f"figure: {folder.relative_to(home)}/figure.png")

    header, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert header == ["method", "restarts", "train", "reversed", "gray"]
    assert all(set(cell) <= {"-", ":"} for cell in rule)
    for (method, title), row in zip((("erm", "ERM"), ("fishr", "Fishr")), rows, strict=True):
        expected = [f"{fmean(values):.1f} ± {pstdev(values):.1f}" for values in _results(folder, method)]
        assert row == [title, "2", *expected]
    labels = [line.split("  ")[:2] for line in said.err.splitlines()]
    runs = [f"{method} {seed}" for method in ("erm", "fishr") for seed in (0, 1)]
    assert labels == [[run, step] for run in runs for step in ("step 2/4", "step 4/4")]


def test_json_beside_the_published_numbers(call, home):
    said = call("reproduce", "colored-mnist", "--methods", "vrex", "--format", "json", "--out", "here")
    assert (said.code, said.out.count("\n")) == (0, 1)
    told = json.loads(said.out)
    (row,) = told["rows"]
    assert told["source"] == "Ramé et al. 2022 (arXiv 2109.02934), Table 2, 10 restarts"
    assert (row["method"], row["restarts"]) == ("vrex", 1)
    assert row["published"]["reversed"] == {"mean": 67.2, "deviation": 1.5}
    measured = [row["measured"][column]["mean"] for column in ("train", "reversed", "gray")]
    assert measured == pytest.approx([values[0] for values in _results(home / "here", "vrex")], abs=1e-9)
    table = (home / "here" / "table.md").read_text()
    assert "published: reversed" in table
    assert "67.2 ± 1.5" in table


def test_it_goes_on_where_it_stopped(call, home, steps):
    """Two restarts are finished and the third has two steps of its four: six are left of sixteen."""
    steps.last = 10
    arguments = ("reproduce", "colored-digits", "--methods", "erm,vrex", "--out", "all")
    with pytest.raises(steps.Died):
        call(*arguments)
    finished = {path: path.stat().st_mtime_ns for path in home.glob("all/erm-*/result.json")}
    assert len(finished) == 2
    assert sorted(path.name for path in (home / "all").iterdir()) == ["erm-0", "erm-1", "vrex-0"]
    assert not (home / "all" / "vrex-0" / "result.json").exists()

    steps.last = None
    said = call(*arguments)
    assert said.code == 0
    assert steps.made == 16
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert [line.split("  ")[0] for line in said.err.splitlines()] == ["vrex 0"] * 2 + ["vrex 1"] * 2
    whole = call(*arguments[:-1], "whole")
    assert whole.out.split("\n\n")[0] == said.out.split("\n\n")[0]


def test_more_restarts_later(call, steps):
    """The table grows; what was run is not run again."""
    for restarts, rows in ((1, "1"), (3, "3")):
        said = call("reproduce", "colored-digits", "--methods", "erm", "--restarts", restarts, "--out", "all")
        assert said.out.splitlines()[2].split("|")[2].strip() == rows
    assert steps.made == 12


def test_a_method_named_twice_is_one_row(call):
    said = call("reproduce", "colored-digits", "--methods", "erm,erm", "--restarts", "1")
    assert len(said.out.split("\n\n")[0].splitlines()) == 3


def test_a_folder_of_other_runs_is_refused(call, home, snapshot, monkeypatch):
    assert call("reproduce", "colored-digits", "--methods", "erm", "--restarts", "1", "--out", "all").code == 0
    before = snapshot(home)
    other = attrs.evolve(REPRODUCTIONS["colored-digits"], recipe=lambda m: attrs.evolve(_quick(m), steps=5))
    monkeypatch.setattr("fishr.reproductions.REPRODUCTIONS", {"colored-digits": other})
    said = call("reproduce", "colored-digits", "--methods", "erm", "--restarts", "1", "--out", "all")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "all/erm-0: holds another experiment than colored-digits-erm; choose another --out" in said.err
    assert snapshot(home) == before


def test_a_run_folder_keeps_its_figure(call, home, finished, snapshot):
    before = snapshot(home)
    said = call("reproduce", "colored-digits", "--methods", "erm", "--out", finished)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "is itself a run folder" in said.err
    assert snapshot(home) == before


def test_an_interruption_says_how_to_go_on(call, monkeypatch):
    made = itertools.count()
    advance = loop.advance

    def interrupting(*given):
        if next(made) == 5:
            raise KeyboardInterrupt
        return advance(*given)

    monkeypatch.setattr(loop, "advance", interrupting)
    said = call("reproduce", "colored-digits", "--out", "all")
    assert said.code == 1
    assert said.err.splitlines()[-1] == "Error: all/erm-1: interrupted; the same command resumes it"
