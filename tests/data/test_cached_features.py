"""Domains from a file of features, written as docs/format.md says."""

import numpy as np
import pytest
import torch

from fishr.data.cached_features import CachedFeatures, provenance_texts
from fishr.data.caches.hdf5 import save_tree
from fishr.errors import InputError


def _part(name, split, rows, dtype, outputs):
    generator = np.random.default_rng(rows)
    return {
        "name": name,
        "split": split,
        "features": generator.normal(size=(rows, 5)).astype(dtype),
        "labels": generator.integers(0, 3, rows),
        "logits": np.zeros((rows, outputs), np.float32),
        "ids": np.arange(rows),
    }


def _write(path, dtype=np.float32, outputs=3):
    # More than ten domains, whose numbers as texts are in another order.
    parts = [_part(f"domain {i}", "training" if i % 2 else "evaluation", i + 1, dtype, outputs) for i in range(12)]
    tree = {
        "provenance": {"weights_sha256": "ab" * 32, "seed": 3, "data": "flips = 3", "torch": "2.9.0"},
        "key": "0123456789abcdef",
        "head": {"text": "", "outputs": outputs, "parameters": {}},
        "domains": {str(i): part for i, part in enumerate(parts)},
    }
    save_tree(path, "fishr-features", tree)
    return parts


@pytest.fixture
def file(tmp_path):
    return tmp_path / "features.h5"


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_domains_are_those_of_the_file(file, dtype):
    parts = _write(file, dtype)
    domains = CachedFeatures(str(file))(0, None)
    assert [domain.name for domain in domains.training] == [f"domain {i}" for i in range(1, 12, 2)]
    assert [domain.name for domain in domains.evaluation] == [f"domain {i}" for i in range(0, 12, 2)]
    assert (domains.classes, domains.shape) == (3, (5,))
    for domain in (*domains.training, *domains.evaluation):
        part = next(part for part in parts if part["name"] == domain.name)
        assert domain.inputs.dtype == torch.float32
        assert np.array_equal(domain.inputs.numpy(), part["features"].astype(np.float32))
        assert np.array_equal(domain.labels.numpy(), part["labels"])


def test_one_output_is_two_classes(file):
    _write(file, outputs=1)
    with pytest.raises(InputError, match=r"features.h5: domain 'domain 0': got label 2, expected .* 0 to 1, for 2"):
        CachedFeatures(str(file))(0, None)


@pytest.mark.slow
def test_chosen_domains_train_and_all_others_evaluate(file):
    _write(file)
    domains = CachedFeatures(str(file), training=("domain 10", "domain 3"))(0, None)
    assert [domain.name for domain in domains.training] == ["domain 10", "domain 3"]
    assert [domain.name for domain in domains.evaluation] == [f"domain {i}" for i in range(12) if i not in (3, 10)]


@pytest.mark.slow
def test_a_relative_path_starts_at_the_data_folder(file):
    _write(file)
    assert len(CachedFeatures("features.h5")(0, file.parent).training) == 6


@pytest.mark.slow
def test_the_key_is_held_to(file):
    _write(file)
    CachedFeatures(str(file), key="0123456789abcdef", expected={"seed": "3", "torch": "2.9.1"})(0, None)
    with pytest.raises(InputError, match="has the key 0123456789ab…, expected fedcba987654…; put back") as caught:
        CachedFeatures(str(file), key="fedcba9876543210")(0, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({"weights_sha256": "cd" * 32}, "made with weights_sha256 = abababababab…, expected cdcdcdcdcdcd…; put back"),
        ({"weights_sha256": "ab" * 32, "seed": "4"}, "made with seed = 3, expected 4; put back"),
        ({"data": "flips = 4"}, "made with data.flips = 3, expected 4; put back"),
        ({"transform": "resize"}, "made with transform = none, expected resize; put back"),
        ({"torch": "1.2.0"}, "made with torch = 2.9, expected 1.2; put back"),
    ],
)
def test_what_differs_is_named(file, expected, told):
    _write(file)
    with pytest.raises(InputError) as caught:
        CachedFeatures(str(file), key="fedcba9876543210", expected=expected)(0, None)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"path": "none.h5"}, "none.h5: no such file"),
        ({"path": "text.h5"}, "text.h5: not an HDF5 file"),
        ({"path": "surface.h5"}, "got a file of kind fishr-surface, expected fishr-features"),
        (
            {"path": "features.h5", "training": ("photo",)},
            "has no domain 'photo', expected one of 'domain 0', 'domain 1'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(file, settings, told):
    _write(file)
    (file.parent / "text.h5").write_text("features")
    save_tree(file.parent / "surface.h5", "fishr-surface", {})
    with pytest.raises(InputError, match=told):
        CachedFeatures(**settings)(0, file.parent)


@pytest.mark.slow
def test_a_flipped_bit_is_noticed(file):
    parts = _write(file)
    content = bytearray(file.read_bytes())
    at = content.index(parts[7]["features"].tobytes())
    content[at + 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        CachedFeatures(str(file))(0, None)


def test_a_provenance_as_texts():
    texts = provenance_texts({"seed": 3, "domains": ("photo", "art"), "transform": None})
    assert texts == {"seed": "3", "domains": "art, photo"}
