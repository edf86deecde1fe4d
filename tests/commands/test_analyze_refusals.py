"""Subjects and options that ``analyze`` refuses."""

import shutil
from pathlib import Path

import pytest

from fishr.data.caches.hdf5 import save_tree

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory, recorded_once, cached_once):
    """A folder with everything that can be wrong, each thing under its own name."""
    home = Path(shutil.copytree(recorded_once, tmp_path_factory.mktemp("world"), dirs_exist_ok=True))
    cache = Path(shutil.copy(cached_once, home)).read_bytes()
    (home / "cut.h5").write_bytes(cache[: len(cache) // 2])
    (home / "empty.h5").write_bytes(b"")
    (home / "notes.h5").write_text("not HDF5")
    flipped = bytearray(cache)
    flipped[len(cache) // 2] ^= 1
    (home / "flipped.h5").write_bytes(flipped)
    save_tree(home / "surface.h5", "fishr-surface", {})
    (home / "folder").mkdir()
    (home / "mine.toml").write_text((home / "mine" / "config.toml").read_text())
    (home / "figures").mkdir()
    (home / "figures" / "pairs.png").write_bytes(b"another program's")

    def changed(name, change):
        change(Path(shutil.copytree(home / "mine", home / name)))

    changed("no-checkpoint", lambda run: (run / "checkpoint.pt").unlink())
    changed(
        "cut-checkpoint", lambda run: (run / "checkpoint.pt").write_bytes((run / "checkpoint.pt").read_bytes()[:900])
    )
    changed("cut-config", lambda run: (run / "config.toml").write_text('name = "colored-digits"\n'))
    changed("taken", lambda run: (run / "analysis.h5").write_text("notes"))
    changed("cut-statistics", lambda run: (run / "statistics.h5").write_bytes(b"\x89HDF\r\n\x1a\n"))
    return home


REFUSED = {
    "nothing there": (["none"], "none: no such run or file; give a run folder or a cache that fishr wrote"),
    "no run": (["folder"], "folder: not a run folder, it has no config.toml"),
    "no checkpoint": (["no-checkpoint"], "no-checkpoint: no checkpoint.pt, though its run has ended"),
    "checkpoint cut short": (["cut-checkpoint"], "checkpoint.pt: not a readable checkpoint"),
    "configuration cut short": (["cut-config"], "cut-config/config.toml: data: missing"),
    "a configuration": (["mine.toml"], "mine.toml"),
    "no HDF5": (["notes.h5"], "notes.h5"),
    "an empty file": (["empty.h5"], "empty.h5"),
    "a cache cut short": (["cut.h5"], "cut.h5"),
    "a flipped bit": (["flipped.h5"], "flipped.h5"),
    "another kind of file": (["surface.h5"], "surface.h5"),
    "statistics cut short": (["cut-statistics"], "statistics.h5"),
    "the second is missing": (["mine", "none"], "none: no such run or file"),
    "one twice": (["mine", "figures/../mine"], "SECOND: got one twice, expected each once"),
    "network of a cache": (["mine-features.h5", "--network"], "got a cache, which holds features alone"),
    "-o with two": (["mine", "erm", "-o", "both.h5"], "--out: got it with two subjects"),
    "-o is the cache": (["mine-features.h5", "-o", "mine-features.h5"], "no analysis replaces it"),
    "-o is no analysis": (["mine", "-o", "notes.h5", "--replace"], "no analysis replaces it"),
    "-o in no folder": (["mine", "-o", "none/a.h5"], "none/a.h5: its folder does not exist"),
    "the result is taken": (["taken"], "no analysis replaces it"),
    "figures are another's": (["mine", "--figures", "figures"], "figures/pairs.png: is not of this analysis"),
    "figures in a file": (["mine", "--figures", "notes.h5"], "notes.h5: a file, expected a folder for figures"),
    "one sample": (["mine", "--samples", "1"], "Invalid value for '--samples'"),
    "negative seed": (["mine", "--seed", "-1"], "Invalid value for '--seed'"),
    "no such option": (["mine", "--figure", "figures"], "No such option"),
    "no subject": ([], "Missing argument 'RUN_OR_FILE'"),
    "no such row": (
        ["--explain", "gradient_norms"],
        "got 'gradient_norms', expected a row of the tables; did you mean",
    ),
    "three subjects": (["mine", "erm", "mine"], "unexpected extra argument"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refused, world, name):
    arguments, part = REFUSED[name]
    refused(world, ["analyze", *arguments], part)
