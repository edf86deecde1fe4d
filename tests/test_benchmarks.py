"""The benchmarks run and compare like with like; how fast things are is theirs to print, not a test's to judge."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import TABLES, in_own_process
from benchmarks.floor import bytes_moved
from benchmarks.growth import exponents
from benchmarks.machine import Times, interleaved, quartiles
from benchmarks.table import Number, Spread, Table, Verdict
from benchmarks.ways import Size
from fishr.methods.every_method import METHODS

ROOT = Path(__file__).resolve().parents[1]
TITLES = {
    "penalty": "Fishr penalty",
    "memory": "Peak memory",
    "step": "A whole training step",
    "whole_network": "A training step of Fishr on layers",
    "growth": "Growth of the penalty's time",
    "diagnostics": "Diagnostics of",
    "analysis": "Analysis of heads",
    "landscape": "plane",
    "methods": "A training step of each method",
    "cached_training": "A step of a linear head",
    "layers_above": "A step of EfficientNet-Lite0's blocks",
    "sweep": "A sweep's jobs",
    "caching": "Streaming rows",
    "image_cache": "Batches of",
    "commands": "Whole commands",
    "ranks": "Ranks on this machine",
    "profile": "Where a Fishr step's time goes",
}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_table_is_printed_and_kept_and_the_ways_agree(tmp_path: Path, forked: None) -> None:
    # It exits with 1 when two ways of computing the same thing disagree.
    file = tmp_path / "measured.json"
    done = run("--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    measured: dict[str, Any] = json.loads(file.read_text())
    assert list(measured) == list(TABLES) == list(TITLES)
    for name, table in measured.items():
        assert TITLES[name] in table["title"]
        assert table["title"].splitlines()[0] in done.stdout
        assert table["machine"]["cores"] >= 1
        assert table["quick"] is True
    ours = measured["penalty"]["rows"][0]
    assert ours["way"] == "closed form"
    assert 0 < ours["ms"]["low"] <= ours["ms"]["median"] <= ours["ms"]["high"]
    assert {row["way"] for row in measured["step"]["rows"]} > {"ERM", "Fishr, ours"}
    assert {row["method"] for row in measured["methods"]["rows"]} == set(METHODS)
    assert {row["ranks"] for row in measured["ranks"]["rows"]} == {1, 2, 4}


def test_a_table_in_a_process_of_its_own_is_handed_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    # A stand-in for a measurement that takes minutes.
    lines = (
        "#!/bin/sh",
        'test "$*" = "-m benchmarks --only growth --json $6" || exit 3',
        "echo '{\"growth\": 1}' > $6",
    )
    (tmp_path / "python").write_text("\n".join([*lines, "exit 1", ""]))
    (tmp_path / "python").chmod(0o700)
    assert in_own_process("growth") == (1, {"growth": 1})


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    file.write_text("mine")
    done = run("--quick", "--only", "penalty", "--json", str(file))
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert file.read_text() == "mine"


def test_a_table_is_printed_and_dumped() -> None:
    row = ("a", 3, Number(1234.567), Spread(1.0, 0.5, 2.0, digits=1), Verdict(3.0, 2.5, at_least=False), None)
    table = Table("Title", ("way", "n", "value", "ms", "target", "none"), (row,))
    assert str(table).splitlines()[0] == "Title"
    assert str(table).splitlines()[-1].split()[:2] == ["a", "3"]
    assert "1,234.57" in str(table)
    assert "1.0 [0.5, 2.0]" in str(table)
    assert "≤ 2.5: MISSED" in str(table)
    assert table.plain()["rows"] == [
        {
            "way": "a",
            "n": 3,
            "value": 1234.567,
            "ms": {"median": 1.0, "low": 0.5, "high": 2.0},
            "target": {"value": 3.0, "target": 2.5, "at_least": False, "met": False},
            "none": None,
        }
    ]


@pytest.mark.parametrize(("value", "at_least", "met"), [(2.0, True, True), (2.0, False, True), (1.9, True, False)])
def test_a_target_itself_is_met(value: float, at_least: bool, met: bool) -> None:
    assert Verdict(value, 2.0, at_least).met is met


def test_ratios_are_taken_round_by_round() -> None:
    times = Times({"a": (1.0, 4.0, 9.0), "b": (1.0, 2.0, 3.0)})
    assert times.ratio("a", "b") == (2.0, 1.5, 2.5)
    assert times.milliseconds("b") == Spread(2000.0, 1500.0, 2500.0)
    assert quartiles([1.0, 2.0]) == (1.5, 1.25, 1.75)


def test_candidates_take_turns() -> None:
    order = list[str]()
    times = interleaved({name: lambda name=name: order.append(name) for name in "AB"}, rounds=9, quick=True)
    assert order == ["A", "B"]
    assert [len(seconds) for seconds in times.seconds.values()] == [2, 2]


def test_exponents_are_those_of_a_power() -> None:
    factors = (1, 2, 8)
    times = Times({str(f): (3 * f**1.5, 0.1 * f**0.5) for f in factors})
    assert exponents(times, factors) == pytest.approx([1.5, 0.5])


def test_a_memory_is_read_and_written_beside_the_rest() -> None:
    size = Size(domains=2, samples=3, features=5, classes=7)
    assert bytes_moved(size, 0.0) == 4 * 3 * (6 * 5 + 7 * 5)
    assert bytes_moved(size, 0.9) - bytes_moved(size, 0.0) == 4 * 2 * 2 * 7 * 5
