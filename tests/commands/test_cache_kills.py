"""Kill -9 in earnest: what benchmarks/kill_and_cache.py does twenty times for each kind of cache, a few times."""

import importlib
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def killing(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.kill_and_cache")


def test_killed_and_finished_to_the_same_arrays(killing, tmp_path):
    lines = list(killing.kill_often(tmp_path, kills=2, seed=3, kinds=("features",)))
    assert sum(line.startswith("kill") for line in lines) == 2
    assert lines[-1].endswith("the same arrays as untouched, nothing left behind")


def test_a_difference_is_noticed(killing, tmp_path):
    """The comparison itself can fail: by a value, by an entry too many, by a file that reads wrongly."""
    import numpy as np

    from fishr.data.caches.hdf5 import save_tree
    from fishr.data.caches.unfinished import Parts
    from fishr.errors import InputError

    def content(folder, **change):
        folder.mkdir()
        tree = {"provenance": {"seed": 3, "created": folder.name}, "rows": np.arange(5.0)} | change
        save_tree(killing.file_of("features", folder), "fishr-features", tree)
        return killing.content("features", folder)

    whole = content(tmp_path / "whole")
    killing.compare(content(tmp_path / "same"), whole, tmp_path)
    killing.check_left("features", tmp_path / "same", whole)
    changes = {"value": {"rows": np.arange(5.0) + np.array([0, 0, 1e-9, 0, 0])}, "more": {"more": 1}}
    for name, change in changes.items():
        with pytest.raises(killing.Mismatch, match="rows" if name == "value" else "more"):
            killing.compare(content(tmp_path / name, **change), whole, tmp_path)
        with pytest.raises(killing.Mismatch):
            killing.check_left("features", tmp_path / name, whole)
    path = killing.file_of("features", tmp_path / "same")
    with Parts(path, "fishr-features", "key") as parts:
        parts.write(0, {"rows": np.arange(5.0)})
    part = path.parent / "features.h5.parts" / "000000.h5"
    part.write_bytes(part.read_bytes()[:-1000])
    with pytest.raises(InputError, match="cut short or damaged"):
        killing.check_left("features", tmp_path / "same", whole)
