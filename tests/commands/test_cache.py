"""``fishr cache``: files that people and other commands can use, and refusals in one line."""

import json
import os
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from fishr.commands import main, progress
from fishr.data.caches import load_tree, open_features, open_gradients
from fishr.data.caches.hdf5 import save_tree, sole_writer

SMALL = ("--set", "featurizer.widths=[8]", "--set", "data.training_images=60", "--set", "data.copies=1")


@pytest.fixture
def features(call, home):
    """The features of a recipe's first weights."""
    said = call("cache", "features", "colored-digits", *SMALL, "-o", "features.h5")
    assert said.code == 0, said
    return home / "features.h5"


@pytest.mark.slow
def test_features_of_a_run(call, finished, home):
    said = call("cache", "features", finished, "-o", "features.h5")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("features.h5: 4 domains, 2294 rows, ")
    cache = open_features(Path("features.h5"))
    assert cache.domain(0)["features"].shape == (650, 8)
    assert cache.provenance["step"] == 7
    before = Path("features.h5").read_bytes()
    again = call("cache", "features", finished, "-o", "features.h5")
    assert again.out.startswith("features.h5: is there already, made of the same; 4 domains")
    assert (again.code, Path("features.h5").read_bytes()) == (0, before)
    assert sorted(path.name for path in home.iterdir()) == ["features.h5", "finished"]


def test_features_of_a_recipe_a_file_and_half_precision(call, home):
    Path("mine.toml").write_text(call("config", "show", "colored-digits", *SMALL).out)
    said = call("cache", "features", "mine.toml", "-o", "a.h5", "--dtype", "float16", "--format", "json")
    told = json.loads(said.out)
    assert (told["written"], told["kind"], told["provenance"]["dtype"]) == (True, "fishr-features", "float16")
    assert told["domains"][0] == {"name": "flip 0.2", "split": "training", "rows": 30, "environment": None}
    assert load_tree(Path("a.h5"), "fishr-features")["domains"]["0"]["features"].dtype == np.float16
    again = call("cache", "features", "colored-digits", *SMALL, "-o", "a.h5", "--dtype", "float16", "--format", "json")
    assert json.loads(again.out) == told | {"written": False}


@pytest.mark.slow
def test_one_domain_after_the_other_and_merged(call, features):
    names = ["reversed", "flip 0.1", "gray", "flip 0.2"]
    for index, name in enumerate(names):
        assert call("cache", "features", "colored-digits", *SMALL, "--domain", name, "-o", f"{index}.h5").code == 0
    said = call("cache", "merge", "0.h5", "1.h5", "2.h5", "3.h5", "-o", "merged.h5", "--format", "json")
    assert said.code == 0, said
    merged, whole = open_features(Path("merged.h5")), open_features(features)
    assert merged.key == whole.key == json.loads(said.out)["key"]
    by_name = {section.name: index for index, section in enumerate(whole.sections)}
    assert [section.split for section in merged.sections] == ["training"] * 2 + ["evaluation"] * 2
    for index, section in enumerate(merged.sections):
        one, two = merged.domain(index), whole.domain(by_name[section.name])
        assert all(np.array_equal(one[name], two[name]) for name in one)
    assert "is there already" in call("cache", "merge", "0.h5", "1.h5", "2.h5", "3.h5", "-o", "merged.h5").out


@pytest.mark.slow
def test_gradients_of_features_and_of_a_run(call, features, finished):
    assert call("cache", "gradients", features, "-o", "factors.h5").code == 0
    assert open_gradients(Path("factors.h5")).form == "factors"
    said = call("cache", "gradients", finished, "-o", "gradients.h5", "--per-sample", "--domain", "gray")
    assert (said.code, said.out.startswith("gradients.h5: 1 domains, 497 rows, ")) == (0, True)
    cache = open_gradients(Path("gradients.h5"))
    assert (cache.form, cache.domain(0)["gradients"].shape) == ("per-sample", (497, 9))
    head = ("--set", "head={kind='MLPHead', widths=[3]}")
    assert call("cache", "gradients", "colored-digits", *SMALL, *head, "-o", "moments.h5").code == 0
    assert open_gradients(Path("moments.h5")).moments().variance.shape == (4, 8 * 3 + 3 + 3 + 1)


def test_info_says_what_a_file_holds(call, features):
    said = call("cache", "info", "features.h5")
    assert (said.code, said.err) == (0, "")
    cache = open_features(features)
    for part in (
        "features.h5: fishr-features, version 1, ",
        f"key: {cache.key}",
        "seed: 0",
        "experiment: ",
        "flip 0.2  training    30",
        "/domains/0/features array float32 30×8",
    ):
        assert part in " ".join(said.out.split()) or part in said.out
    told = json.loads(call("cache", "info", "features.h5", "--format", "json").out)
    assert told["provenance"]["weights_sha256"] == cache.provenance["weights_sha256"]
    assert {"name": "flip 0.1", "split": "training", "rows": 30, "environment": None} in told["domains"]
    assert [e["shape"] for e in told["elements"] if e["name"] == "/domains/0/logits"] == [[30, 1]]


def test_info_and_verify_know_every_kind(call, home):
    save_tree(Path("surface.h5"), "fishr-surface", {"train_loss": np.zeros((3, 3))})
    assert "/train_loss  array       float64  3×3" in call("cache", "info", "surface.h5").out
    said = call("cache", "verify", "surface.h5")
    assert (said.code, said.out) == (0, "surface.h5: every byte of its 1 data sets is as it was written\n")


@pytest.fixture
def world(call, home, features, finished_once):
    """A folder of files, each with something wrong or of another kind."""
    content = features.read_bytes()
    flipped = bytearray(content)
    for index in (0, 1):
        place = content.index(open_features(features).domain(index)["features"].tobytes())
        flipped[place + 7] ^= 1
    Path("flipped.h5").write_bytes(flipped)
    Path("cut.h5").write_bytes(content[:-900])
    Path("text.h5").write_text("features")
    save_tree(Path("surface.h5"), "fishr-surface", {})
    call("cache", "features", "colored-digits", *SMALL, "--set", "seed=1", "-o", "seed.h5")
    (home / "notes").mkdir()
    (home / "finished").symlink_to(finished_once)
    return home


RECIPE = ("cache", "features", "colored-digits", *SMALL)
REFUSED = {
    "other weights": (("cache", "features", "finished", "-o", "features.h5"), "made with data.training_images = 60"),
    "other seed": ((*RECIPE, "--set", "seed=1", "-o", "features.h5"), "features.h5: made with seed = 0, expected 1"),
    "other type": ((*RECIPE, "--dtype", "float16", "-o", "features.h5"), "made with dtype = float32, expected float16"),
    "other domains": ((*RECIPE, "--domain", "gray", "-o", "features.h5"), "made with domains = "),
    "other program's": ((*RECIPE, "-o", "text.h5"), "text.h5: not an HDF5 file"),
    "other kind": ((*RECIPE, "-o", "surface.h5"), "got a file of kind fishr-surface, expected fishr-features"),
    "no folder": ((*RECIPE, "-o", "none/a.h5"), "cannot be written there (No such file or directory)"),
    "no such domain": ((*RECIPE, "--domain", "grey", "-o", "new.h5"), "--domain: got 'grey', expected one of"),
    "no such recipe": (("cache", "features", "none", "-o", "new.h5"), "none: neither a recipe nor a file"),
    "not a run": (("cache", "features", "notes", "-o", "new.h5"), "notes: not a run folder, it has no config.toml"),
    "no output": (RECIPE, "Missing option '-o'"),
    "of half the options": (
        ("cache", "gradients", "features.h5", "--domain", "gray", "-o", "new.h5"),
        "--domain: got it together with a feature cache",
    ),
    "of another kind": (("cache", "gradients", "surface.h5", "-o", "new.h5"), "got a file of kind fishr-surface"),
    "flipped": (("cache", "gradients", "flipped.h5", "-o", "new.h5"), "flipped.h5: "),
    "verify flipped": (("cache", "verify", "flipped.h5"), "/domains/1/features: "),
    "verify cut": (("cache", "verify", "cut.h5"), "cut.h5: cut short or damaged"),
    "verify text": (("cache", "verify", "text.h5"), "text.h5: not an HDF5 file"),
    "info nothing": (("cache", "info", "none.h5"), "none.h5: no such file"),
    "merge one": (("cache", "merge", "features.h5", "-o", "new.h5"), "merge: got 1 file, expected at least 2"),
    "merge seeds": (("cache", "merge", "features.h5", "seed.h5", "-o", "new.h5"), "seed.h5: made with seed = 1, expec"),
    "merge twice": (
        ("cache", "merge", "features.h5", "features.h5", "-o", "new.h5"),
        "has domain 'flip 0.2', as has features.h5",
    ),
}


@pytest.mark.slow
def test_refused(refused, world):
    for arguments, part in REFUSED.values():
        refused(world, arguments, part)


@pytest.mark.slow
def test_a_second_writer_is_told(call, features):
    with sole_writer(features):
        said = call(*RECIPE, "-o", "features.h5")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "Error: features.h5: another process is writing it; wait for it to end, or choose another name\n"
    )


def test_a_full_disk_and_then_a_free_one(call, home, features):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = features.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    said = call(*RECIPE, "-o", "more.h5")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith("could not be written (File too large); nothing was left behind\n")
    assert said.err.count("\n") == 1
    assert not Path("more.h5").exists()
    assert features.read_bytes() == before
    assert call(*RECIPE, "-o", "more.h5").code == 0
    assert open_features(Path("more.h5")).key == open_features(features).key


def test_an_interruption_says_how_to_go_on(call, home, monkeypatch):
    from fishr.data.caches.unfinished import Parts

    write = Parts.write

    def interrupted(parts, number, tree):
        if number == 2:
            raise KeyboardInterrupt
        write(parts, number, tree)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "write", interrupted)
        said = call(*RECIPE, "-o", "a.h5")
    assert (said.code, said.err) == (1, "Error: a.h5: interrupted; the same command resumes it\n")
    assert len(list(Path("a.h5.parts").iterdir())) == 2
    assert call(*RECIPE, "-o", "a.h5").code == 0
    assert sorted(path.name for path in home.iterdir()) == ["a.h5"]


def test_a_bar_on_a_terminal(home, monkeypatch, capfd):
    """Through a pseudo-terminal; in a pipe there is none, as the tests above see."""
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    # A bar appears after two seconds, which the command may not take.
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    with os.fdopen(slave, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit) as done:
            main([*RECIPE, "-o", "a.h5"])
    assert done.value.code == 0
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert re.search(r"100%\|█+\| 3\.53k/3\.53k \[", shown), shown
