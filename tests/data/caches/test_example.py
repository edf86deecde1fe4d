"""The example reads what fishr wrote, without fishr, and finds the numbers that fishr finds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fishr.analysis.cache_writing import cache_features, cache_gradients, featured_experiment
from fishr.data.caches import open_features, open_gradients
from fishr.data.caches.hdf5 import save_tree
from fishr.protocols import colored_digits

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "read_cache.py"


def _read(file, folder):
    command = [sys.executable, "-W", "error", str(EXAMPLE), str(file)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def file(tmp_path):
    cache_features(featured_experiment(colored_digits()), tmp_path / "features.h5")
    return tmp_path / "features.h5"


def test_the_example_needs_no_fishr():
    assert re.findall(r"^(?:import|from) (\w+)", EXAMPLE.read_text(), re.MULTILINE) == [
        "sys",
        "hashlib",
        "h5py",
        "numpy",
    ]


def test_the_example_finds_the_same_numbers(file, tmp_path):
    done = _read(file, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    cache = open_features(file)
    assert f"key: {cache.key}\n" in done.stdout
    found = re.findall(
        r"(.*) \((\w+)\): \((\d+), 390\) features, accuracy ([\d.]+), logits differ by (\S+)", done.stdout
    )
    assert [(name, split, int(rows)) for name, split, rows, *_ in found] == [
        (section.name, section.split, section.rows) for section in cache.sections
    ]
    for index, (*_, accuracy, apart) in enumerate(found):
        rows = cache.domain(index)
        right = (rows["logits"][:, 0] > 0) == rows["labels"]
        assert float(accuracy) == pytest.approx(right.mean(), abs=2e-3)
        assert float(apart) < 1e-5
    cache_gradients(featured_experiment(colored_digits()), tmp_path / "gradients.h5")
    variance = open_gradients(tmp_path / "gradients.h5").moments().variance[:2, :-1]
    ((distance,),) = [re.findall(r"differ by (\S+)\n$", done.stdout)]
    assert float(distance) == pytest.approx(float((variance[0] - variance[1]).square().sum()), rel=1e-3)


def test_the_example_tells_of_damage_and_of_other_files(file, tmp_path):
    content = bytearray(file.read_bytes())
    content[content.index(open_features(file).domain(2)["labels"].tobytes()) + 8] ^= 1
    file.write_bytes(content)
    damaged = _read(file, tmp_path)
    # HDF5 itself refuses the chunk.
    assert damaged.returncode == 1
    assert "fletcher32" in damaged.stderr or "filter" in damaged.stderr
    save_tree(tmp_path / "surface.h5", "fishr-surface", {})
    other = _read(tmp_path / "surface.h5", tmp_path)
    assert (other.returncode, "a fishr-surface of version 1" in other.stderr) == (1, True)
