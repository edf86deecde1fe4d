"""``fishr analyze`` of statistics.h5, wherever it is."""

import json
import shutil

import h5py
import pytest


@pytest.fixture(scope="module")
def recorded_once(tmp_path_factory, call_anywhere, short_fishr):
    folder = tmp_path_factory.mktemp("recorded") / "fishr"
    said = call_anywhere("train", *short_fishr, "--record-statistics", "every=3,samples=40", "--out", folder)
    assert said.code == 0, said
    return folder / "statistics.h5"


@pytest.fixture
def statistics(home, recorded_once):
    """The file alone, without its run."""
    (home / "kept").mkdir()
    return shutil.copy(recorded_once, home / "kept" / "statistics.h5")


def test_numbers_are_those_of_the_file(call, statistics):
    said = call("analyze", "kept/statistics.h5", "--format", "json")
    assert (said.code, said.err) == (0, "")
    found = json.loads(said.out)
    (history,) = found["histories"]
    with h5py.File(statistics) as file:
        for name in ("steps", "risks", "inconsistency"):
            assert history[name] == file[name][()].tolist()
        assert history["variance_distance"] == file["variance_distance_scale_free"][()].tolist()
        assert history["penalties"] == {"fishr": file["penalties/fishr"][()].tolist()}
    assert (history["name"], history["finished"]) == ("kept", True)
    assert found["figures"] == ["kept/statistics/history.png"]


@pytest.mark.slow
def test_a_table_over_the_steps(call, home, statistics):
    said = call("analyze", "kept/statistics.h5", drawn=True)
    head, _, *rows = said.out.split("\n\n")[0].splitlines()
    assert head.startswith("kept, step")
    assert head.endswith("fishr")
    assert [row.split()[0] for row in rows] == ["0", "3", "6", "7"]
    assert (home / "kept" / "statistics" / "history.png").read_bytes()[:4] == b"\x89PNG"
    assert call("analyze", "kept/statistics.h5").code == 0


def test_two_side_by_side(call, home, statistics):
    shutil.copy(statistics, home / "other.h5")
    said = call("analyze", "kept/statistics.h5", "other.h5", "--figures", "figures")
    assert said.code == 0
    assert "other, step" in said.out
    assert said.out.endswith("figure: figures/history.png\n")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--samples", 5), "--samples: got it with recorded statistics, which are complete; drop it"),
        (("-o", "a.h5"), "--out: got it with recorded statistics"),
        (("kept",), "kept: got it beside recorded statistics, expected another file of statistics"),
    ],
)
def test_refusals(refused, home, statistics, arguments, part):
    refused(home, ("analyze", "kept/statistics.h5", *arguments), part)


@pytest.mark.slow
def test_a_cache_has_no_statistics(call, home, finished):
    assert call("cache", "features", finished, "-o", "f.h5").code == 0
    said = call("analyze", "f.h5", "--format", "json")
    assert (said.code, json.loads(said.out)["histories"]) == (0, [])
