"""Trees with every encoding, and what one looks like after a flip."""

import numpy as np
import pytest

from fishr.data.caches.hdf5 import save_tree


@pytest.fixture
def tree():
    """Every encoding, edge sizes, and names and texts that are not ASCII."""
    generator = np.random.default_rng(0)
    return {
        "array": generator.normal(size=(40, 7)).astype(np.float32),
        "half": generator.normal(size=5).astype(np.float16),
        "flags": np.array([True, False]),
        "indices": np.arange(6).reshape(2, 3),
        "empty": np.zeros((0, 3)),
        "single": np.array(2.5),
        "text": "größe\nzwei Zeilen",
        "no text": "",
        "texts": ("photo", "", "skizze ä"),
        "no texts": (),
        "nothing": None,
        "nested": {"yes": True, "whole": -3, "decimal": 0.1, "nan": float("nan"), "deeper": {"0.weight": np.ones(2)}},
        "nobody": {},
    }


@pytest.fixture
def file(tmp_path, tree):
    """That tree in a file."""
    path = tmp_path / "file.h5"
    save_tree(path, "fishr-analysis", tree)
    return path


@pytest.fixture
def same():
    """Whether two trees hold the same, to the bit, in the same order."""

    def compare(one, other):
        if isinstance(one, dict):
            return list(one) == list(other) and all(compare(one[key], other[key]) for key in one)
        if isinstance(one, np.ndarray):
            alike = isinstance(other, np.ndarray) and (one.dtype, one.shape) == (other.dtype, other.shape)
            return alike and one.tobytes() == other.tobytes()
        return type(one) is type(other) and (one == other or one != one)

    return compare
