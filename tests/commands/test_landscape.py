"""``fishr landscape`` as a person calls it, read from the files it leaves."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from fishr.analysis import open_subject
from fishr.commands import main
from fishr.landscape import load_surface

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PLANE = ["contours", "inconsistency"]
# Each domain is a panel of each figure.
TWO = ("--domains", "flip 0.1", "--domains", "gray")


@pytest.fixture(scope="module")
def kept_once(tmp_path_factory):
    """Two runs that kept their checkpoints."""
    parent = tmp_path_factory.mktemp("kept")
    for name, seed in (("one", 3), ("two", 4)):
        arguments = ["train", "colored-digits-erm", "--keep-checkpoints", "--seed", seed, "--out", parent / name]
        for setting in ("steps=7", "checkpoint_every=2", "featurizer.widths=[8]", "data.copies=1"):
            arguments += ["--set", setting]
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        assert done.value.code == 0
    return parent


@pytest.fixture
def runs(kept_once, home):
    """Copies of the two runs in the working directory."""
    for name in ("one", "two"):
        shutil.copytree(kept_once / name, home / name)
    return home


def _pictures(path):
    return [path.with_name(f"{path.stem}-{name}.png") for name in PLANE]


def test_a_table_a_surface_and_pictures(runs, call):
    said = call("landscape", "one", "--grid", "5x4", drawn=True)
    assert (said.code, said.err) == (0, "")
    path = Path("one/landscape-random.h5")
    surface = load_surface(path)
    assert [len(axis) for axis in surface.axes] == [5, 4]
    subject = open_subject(Path("one"))
    with torch.no_grad():
        for index, (name, (features, labels)) in enumerate(
            zip(subject.domains, subject.seen.domain_samples, strict=True)
        ):
            risk = subject.seen.loss(subject.seen.head(features), labels).double().mean()
            torch.testing.assert_close(surface.risks[(index, *surface.center)], risk, atol=1e-6, rtol=1e-5)
            row = next(line for line in said.out.splitlines() if line.startswith(name))
            assert float(row.split()[-4]) == pytest.approx(float(risk), rel=1e-3)
    for picture in _pictures(path):
        with Image.open(picture) as image:
            assert image.size[0] > 400
        assert f"figure: {picture}" in said.out
    assert f"surface: {path}" in said.out
    assert "inconsistency of the training domains: " in said.out


def test_json_is_the_same_in_numbers(runs, call):
    said = call("landscape", "one", "--grid", "3", "--epsilon", "0.2", "--format", "json", "--seed", 5)
    assert said.code == 0, said
    found, surface = json.loads(said.out), load_surface(Path("one/landscape-random.h5"))
    assert found["directions"] == {
        "explained": [],
        "kind": "random",
        "names": list(surface.directions.names),
        "seed": 5,
    }
    assert (found["grid"], found["epsilon"]) == ([3, 3], 0.2)
    for index, domain in enumerate(found["domains"]):
        assert domain["risk"] == float(surface.risks[index, 1, 1])
        assert (domain["lowest"], domain["highest"]) == (
            float(surface.risks[index].min()),
            float(surface.risks[index].max()),
        )
        assert "barrier" not in domain
    assert [domain["split"] for domain in found["domains"]] == ["training", "training", "evaluation", "evaluation"]
    assert found["inconsistency"] > 0


@pytest.mark.parametrize("kind", ["pca", "checkpoints", "eigen", "gradients"])
def test_every_kind_of_plane(runs, call, kind):
    said = call("landscape", "one", "--directions", kind, "--grid", 4, "-o", "mine.h5", *TWO)
    assert said.code == 0, said
    assert load_surface(Path("mine.h5")).directions.kind == kind
    assert sorted(path.name for path in runs.iterdir() if path.is_file()) == [
        *(f"mine-{name}.png" for name in PLANE),
        "mine.h5",
    ]


def test_lines(runs, call):
    said = call("landscape", "one", "--directions", "line", "--grid", 5, "--lines", 3, "--domains", "gray")
    assert said.code == 0, said
    surface = load_surface(Path("one/landscape-line.h5"))
    assert surface.scores.losses.shape == (1, 5, 3)
    assert surface.domains == ("gray",)
    assert surface.every == ("flip 0.2", "flip 0.1", "reversed", "gray")
    assert Path("one/landscape-line.png").is_file()


def test_two_runs_are_interpolated_with_all_their_parameters(runs, call):
    said = call("landscape", "one", "two", "--grid", 5, "--format", "json", drawn=True)
    assert said.code == 0, said
    found, surface = json.loads(said.out), load_surface(Path("one/landscape-interpolation.h5"))
    assert any(name.startswith("featurizer.") for name in surface.parameters)
    assert all(domain["barrier"] >= 0 for domain in found["domains"])
    assert found["directions"]["names"] == ["one to two"]
    scores = json.loads(call("evaluate", "one", "--format", "json").out)["scores"]
    for score, domain in zip(scores, found["domains"], strict=True):
        assert domain["risk"] == pytest.approx(score["loss"], abs=1e-5)


def test_eigenvectors_of_a_named_domain(runs, call):
    said = call("landscape", "one", "--directions", "eigen", "--of", "gray", "--grid", 3, *TWO)
    assert said.code == 0, said
    assert "eigenvector 1 of gray" in said.out


def test_a_film_over_the_kept_checkpoints(runs, call):
    said = call("landscape", "one", "--grid", 3, "--animate", *TWO, drawn=True)
    assert said.code == 0, said
    assert load_surface(Path("one/landscape-random.h5")).frames.steps == (0, 2, 4, 6, 7)
    with Image.open("one/landscape-random.gif") as film:
        assert film.n_frames == 5
    assert "figure: one/landscape-random.gif" in said.out


def test_a_cache_needs_no_run(runs, call):
    assert call("cache", "features", "one", "-o", "features.h5").code == 0
    shutil.move("one", "away")
    said = call("landscape", "features.h5", "--grid", 3, *TWO)
    assert said.code == 0, said
    away = load_surface(Path("features.landscape-random.h5"))
    assert call("landscape", "away", "--grid", 3, *TWO).code == 0
    torch.testing.assert_close(away.risks, load_surface(Path("away/landscape-random.h5")).risks)


def test_the_same_again_draws_again_and_computes_nothing(runs, call):
    assert call("landscape", "one", "--grid", 3, *TWO).code == 0
    surface, picture = Path("one/landscape-random.h5"), Path("one/landscape-random-contours.png")
    before = surface.stat().st_mtime_ns
    picture.unlink()
    assert call("landscape", "one", "--grid", 3, "--epsilon", 0.5, *TWO).code == 0
    assert surface.stat().st_mtime_ns == before
    assert picture.is_file()


def _refusals(name):
    return {
        "no such run": (["nowhere"], "nowhere: no such run or file"),
        "no folder": (["one", "-o", "nowhere/a.h5"], "its folder does not exist"),
        "grid": (["one", "--grid", "5x"], "--grid: got '5x', expected points of each axis, such as 51 or 51x31"),
        "grid of nothing": (["one", "--grid", "0"], "--grid: got '0'"),
        "two axes of a line": (["one", "--directions", "line", "--grid", "5x5"], "expected one number"),
        "span": (["one", "--span", "-1"], "span: got -1.0, expected a positive number"),
        "epsilon": (["one", "--epsilon", "-1"], "--epsilon: got -1.0"),
        "domain": (["one", "--domains", "cartoon"], "got domain 'cartoon', expected some of: flip 0.2"),
        "one twice": (["one", "one"], "SECOND: got one twice, expected each once"),
        "one run": (["one", "--directions", "interpolation"], "expected two runs for interpolation"),
        "two runs": (["one", "two", "--directions", "pca"], "expected two runs for interpolation"),
        "heads of other features": (["one", "two", "--parameters", "head"], "the features of domain 'flip 0.2' differ"),
        "device": (["one", "--device", "tpu"], "device: got 'tpu', expected auto"),
        "file of another kind": (["one/config.toml"], "not an HDF5 file"),
        "name that is taken": (["one", "-o", "taken.h5"], "not an HDF5 file"),
        "film of lines": (["one", "--directions", "line", "--animate"], "expected a plane, such as random"),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "no such run",
        "no folder",
        "grid",
        "grid of nothing",
        "two axes of a line",
        "span",
        "epsilon",
        "domain",
        "one run",
        "two runs",
        "heads of other features",
        "device",
        "file of another kind",
        "name that is taken",
        "film of lines",
    ],
)
def test_what_cannot_be_used_is_refused_in_a_line(runs, refused, name):
    (runs / "taken.h5").write_text("mine")
    arguments, part = _refusals(name)
    refused(runs, ["landscape", *arguments], part)


def test_nothing_of_others_is_overwritten(runs, call, refused):
    assert call("landscape", "one", "--grid", 3, *TWO).code == 0
    refused(runs, ["landscape", "one", "--grid", 5, *TWO], "holds another landscape; choose another name")
    Path("mine-contours.png").write_bytes(b"somebody's")
    refused(runs, ["landscape", "one", "--grid", 3, "-o", "mine.h5", *TWO], "mine-contours.png: exists already")


def test_a_flipped_byte_is_noticed(runs, call, refused):
    assert call("landscape", "one", "--grid", 5, *TWO).code == 0
    path = Path("one/landscape-random.h5")
    content, surface = bytearray(path.read_bytes()), load_surface(path)
    at = content.find(surface.scores.losses[0].numpy().tobytes()[8:24])
    content[at] ^= 1
    path.write_bytes(content)
    refused(runs, ["landscape", "one", "--grid", 5, *TWO], "one/landscape-random.h5: ")


def test_killed_it_goes_on(runs, call, forked):
    """All parameters, a part a grid row: SIGKILL once some rows are there."""
    arguments = ["landscape", "one", "--parameters", "all", "--grid", "80x2", "-o", "mine.h5", *TWO]
    process = subprocess.Popen([sys.executable, str(ROOT / "cli.py"), *arguments])
    parts = Path("mine.h5.parts")
    deadline = time.monotonic() + 100
    while not (parts.is_dir() and len(list(parts.glob("*.h5"))) >= 3) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("mine.h5").exists()
    kept = {path: path.stat().st_mtime_ns for path in sorted(parts.glob("*.h5"))[:3]}
    assert len(kept) == 3
    assert call("landscape", "one", "--parameters", "all", "--grid", "80x3", "-o", "mine.h5", *TWO).code == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert call(*arguments).code == 0
    assert not parts.exists()
    assert not load_surface(Path("mine.h5")).scores.losses.isnan().any()
