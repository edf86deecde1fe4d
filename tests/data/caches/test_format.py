"""What docs/format.md says of key, digest and hashes, recomputed with plain h5py."""

import json
import re
from hashlib import sha256
from pathlib import Path

import h5py
import pytest
import torch

from fishr.analysis.cache_writing import cache_features, featured_experiment
from fishr.data.caches.hdf5 import KINDS
from fishr.protocols import colored_digits

FORMAT = Path(__file__).resolve().parents[3] / "docs" / "format.md"


@pytest.fixture
def file(tmp_path):
    cache_features(featured_experiment(colored_digits(), domains=("gray", "flip 0.1")), tmp_path / "features.h5")
    with h5py.File(tmp_path / "features.h5") as opened:
        yield opened


def _value(item):
    encoding = item.attrs["encoding-type"].decode()
    if encoding == "texts":
        return list(item.asstr()[()])
    return item.asstr()[()] if encoding == "text" else item[()].item()


def test_the_key(file):
    provenance = {name: _value(item) for name, item in file["provenance"].items()}
    assert provenance["domains"] == ["flip 0.1", "gray"]
    for name in ("device", "created"):
        del provenance[name]
    for name in ("library", "torch"):
        provenance[name] = ".".join(provenance[name].split(".")[:2])
    provenance["domains"].sort()
    assert sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest() == file["key"].asstr()[()]


def test_the_digest_and_the_hashes(file):
    lines = []

    def visit(name, item):
        attributes = [item.attrs[each] for each in ("encoding-type", "encoding-version")]
        line = [name, attributes[0].decode(), str(attributes[1])]
        if isinstance(item, h5py.Dataset):
            line += [item.attrs["sha256"].decode(), str(item.dtype), str(item.shape)]
            assert item.attrs["sha256"].decode() == sha256(item[()].tobytes()).hexdigest()
        else:
            line.append("None")
        lines.append("\t".join(line))

    file.visititems(visit)
    expected = sha256("\n".join(sorted(lines)).encode()).hexdigest()
    kind, version, library = (file.attrs[name] for name in ("encoding-type", "encoding-version", "library"))
    assert file.attrs["digest"].decode() == f"{expected}-{kind.decode()}-{version}-{library.decode()}"


def test_the_hash_of_the_head(file):
    digest = sha256()
    for name, item in sorted(file["head/parameters"].items()):
        digest.update(f"head.{name} {item.dtype.str} {item.shape}\n".encode() + item[()].tobytes())
    assert file["provenance/head_sha256"].asstr()[()] == digest.hexdigest()
    assert torch.from_numpy(file["head/parameters/weight"][()]).shape == (1, 390)


def test_every_element_of_the_file_is_described(file):
    told = FORMAT.read_text()
    names = []
    file.visititems(lambda name, item: names.append(name))
    for name in names:
        generic = re.sub(r"^domains/\d+", "domains/0", name)
        last = generic.rsplit("/", 1)[-1]
        known = f"`{generic}`" in told or (generic.startswith("provenance/") and f"`{last}`" in told)
        assert known or generic.startswith("head/parameters/") or generic in ("head", "domains"), name
    for kind in KINDS:
        assert f"\n## `{kind}`\n" in told
