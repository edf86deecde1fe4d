"""Activation caches: rows of any shape read one by one, their types, and what is refused."""

import h5py
import numpy as np
import pytest
import torch

from fishr.data import CachedFeatures
from fishr.data.caches import Section, describe, open_activations, open_features, verify
from fishr.data.caches.activation_cache import write_activations
from fishr.errors import InputError

SHAPE, ROWS = (16, 8, 9), (150, 20)
SECTIONS = (Section("photo", "training", ROWS[0]), Section("art", "evaluation", ROWS[1]))


def activations(domain, start, stop):
    draw = np.random.default_rng(domain)
    return draw.standard_normal((max(ROWS), *SHAPE)).astype(np.float32)[start:stop]


def write(path, dtype="float32", scale=1.0, at="0.blocks.4"):
    layer = {
        "at": at,
        "inputs": np.array((3, 32, 32)),
        "shape": np.array(SHAPE),
        "classes": 2,
        "below_sha256": "0" * 64,
        "weights": {"0.blocks.5.weight": np.ones((2, 3), np.float32)},
    }

    def rows(domain, start, stop):
        ids = np.arange(start, stop)
        return {"activations": scale * activations(domain, start, stop), "labels": ids % 2, "ids": ids}

    return write_activations(path, {"dtype": dtype, "domains": ("photo", "art")}, layer, SECTIONS, rows)


@pytest.fixture
def file(tmp_path):
    assert write(tmp_path / "a.h5")
    return tmp_path / "a.h5"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_are_inputs_of_the_layers_above(tmp_path, dtype):
    write(tmp_path / "a.h5", dtype)
    data = CachedFeatures("a.h5", at="featurizer.blocks.4")(0, tmp_path)
    assert [(domain.name, split) for domain, split in data.by_split] == [("photo", "training"), ("art", "evaluation")]
    inputs = data.training[0].inputs
    assert (inputs.shape, inputs.dtype, data.classes) == ((150, *SHAPE), torch.float32, 2)
    assert inputs.below_sha256 == "0" * 64
    expected = torch.from_numpy(activations(0, 0, 150).astype(dtype).astype(np.float32))
    assert torch.equal(inputs.read([3, 149, 0]), expected[[3, 149, 0]])
    chosen = data.training[0].part([9, 2, 7]).inputs
    assert torch.equal(chosen.plain().to(torch.device("cpu")).read([2, 0], seeds=[1, 2]), expected[[7, 9]])
    out = torch.empty(1, *SHAPE)
    assert chosen.finish(chosen.read([1]), [1], out=out) is out
    assert torch.equal(out[0], expected[2])
    assert data.training[0].labels.tolist() == [row % 2 for row in range(150)]


def test_a_chunk_is_a_row_and_the_weights_above_are_kept(file):
    with h5py.File(file) as opened:
        rows = opened["domains/0/activations"]
        assert (rows.shape, rows.chunks, rows.fletcher32) == ((150, *SHAPE), (1, *SHAPE), True)
    cache = open_activations(file)
    assert (cache.at, cache.inputs, cache.shape, cache.classes) == ("0.blocks.4", (3, 32, 32), SHAPE, 2)
    assert np.array_equal(cache.weights["0.blocks.5.weight"], np.ones((2, 3)))
    assert [section.rows for section in describe(file).sections] == list(ROWS)
    assert verify(file) == ()
    assert not write(file)


def test_another_kind_and_another_layer_are_refused(file, tmp_path):
    with pytest.raises(InputError, match="got a file of kind fishr-activations, expected fishr-features"):
        open_features(file)
    with pytest.raises(InputError, match=r"holds the outputs of '0\.blocks\.4', expected those of 'blocks\.3'"):
        CachedFeatures("a.h5", at="blocks.3")(0, tmp_path)
    with pytest.raises(InputError, match=r"expected those of 'locks\.4'"):
        CachedFeatures("a.h5", at="locks.4")(0, tmp_path)
    with pytest.raises(InputError, match="has the key"):
        CachedFeatures("a.h5", key="1" * 64, at="blocks.4")(0, tmp_path)


def test_values_beyond_the_stored_type_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"an activation of domain 'photo' is .*, beyond float16; use float32"):
        write(tmp_path / "a.h5", "float16", scale=1e6)
    with pytest.raises(InputError, match="an activation"):
        write(tmp_path / "b.h5", scale=np.inf)


def test_a_flipped_bit_is_noticed(file):
    whole = open_activations(file).rows(1)
    whole.read(0)
    content = bytearray(file.read_bytes())
    place = content.find(activations(0, 5, 6).tobytes())
    content[place + 3] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(InputError):
        open_activations(file).rows(0).read(5)
    assert len(verify(file)) == 1
