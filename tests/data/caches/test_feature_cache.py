"""Feature caches: streamed part by part, finished after a kill, read in slices, merged."""

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fishr.data.caches import Section, load_tree, merge_features, open_features
from fishr.data.caches.domain_writing import rows_a_part
from fishr.data.caches.feature_cache import write_features
from fishr.data.caches.hdf5 import save_tree
from fishr.data.caches.provenance import cache_key
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError, RunFailed

SECTIONS = (Section("photo", "training", 150), Section("sketch", "evaluation", 64), Section("clip", "training", 1))
PROVENANCE = {"seed": 3, "domains": ("photo", "sketch", "clip"), "dtype": "float32", "torch": "2.9.0", "device": "cpu"}
HEAD = {"text": "", "outputs": 3, "parameters": {"weight": np.ones((3, 5), np.float32)}}


def columns(domain, rows=150):
    generator = np.random.default_rng(domain)
    return {
        "features": generator.normal(size=(rows, 5)).astype(np.float32),
        "labels": generator.integers(0, 3, rows),
        "logits": generator.normal(size=(rows, 3)).astype(np.float32),
        "ids": np.arange(rows),
    }


class Source:
    """Rows of given domains, and a record of what was asked for; dies at one of the calls."""

    def __init__(self, sections=SECTIONS, dies_at=None):
        self.parts = [columns(section.name[0].encode()[0], section.rows) for section in sections]
        self.asked = []
        self.dies_at = dies_at

    def __call__(self, domain, start, stop):
        if len(self.asked) == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append((domain, start, stop))
        return {name: column[start:stop] for name, column in self.parts[domain].items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.h5"


def write(path, source=None, provenance=PROVENANCE, sections=SECTIONS, part_rows=64, **more):
    source = source or Source(sections)
    return write_features(path, provenance, HEAD, sections, source, part_rows, **more)


def files(path):
    return sorted(each.name for each in path.parent.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("part_rows", [30, 64, 1000])
def test_every_row_comes_back(path, part_rows):
    source, seen = Source(), []
    assert write(path, source, part_rows=part_rows, progress=lambda *rows: seen.append(rows))
    cache = open_features(path)
    assert cache.sections == SECTIONS
    assert (cache.key, seen[-1]) == (cache_key(PROVENANCE), (215, 215))
    assert list(cache.provenance) == [*PROVENANCE, "created"]
    assert cache.head["outputs"] == 3
    for index, part in enumerate(source.parts):
        found = cache.domain(index)
        assert list(found) == ["features", "labels", "logits", "ids"]
        for name, column in part.items():
            assert found[name].dtype == column.dtype
            assert np.array_equal(found[name], column)
    assert files(path) == ["features.h5"]


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(0, 2), st.integers(0, 200), st.none() | st.integers(0, 200))
def test_slices_are_those_of_the_whole(tmp_path, index, start, stop):
    path = tmp_path / "features.h5"
    if not path.exists():
        write(path)
    found = open_features(path).domain(index, start, stop)
    for name, column in Source().parts[index].items():
        assert np.array_equal(found[name], column[start:stop])


def test_it_is_a_tree_like_any_other(path):
    write(path)
    tree = load_tree(path, "fishr-features")
    assert list(tree) == ["provenance", "key", "head", "domains"]
    assert list(tree["domains"]) == ["0", "1", "2"]
    first = tree["domains"]["0"]
    assert list(first) == ["name", "split", "features", "labels", "logits", "ids"]
    assert np.array_equal(first["features"], Source().parts[0]["features"])


def test_half_precision_is_read_back_as_single(path):
    write(path, provenance=PROVENANCE | {"dtype": "float16"})
    with h5py.File(path) as file:
        assert file["domains/0/features"].dtype == np.float16
        assert file["domains/0/logits"].dtype == np.float32
    found = open_features(path).domain(0, 10, 20)["features"]
    assert found.dtype == np.float32
    assert np.array_equal(found, Source().parts[0]["features"][10:20].astype(np.float16).astype(np.float32))


def test_a_feature_beyond_half_precision_is_refused(path):
    source = Source()
    source.parts[1]["features"][3, 2] = -70_000
    with pytest.raises(InputError, match="a feature of domain 'sketch' is 7e\\+04, beyond float16; use float32"):
        write(path, source, PROVENANCE | {"dtype": "float16"})
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", range(5))
def test_what_was_finished_is_not_computed_again(path, dies_at):
    first, again = Source(dies_at=dies_at), Source()
    with pytest.raises(KeyboardInterrupt):
        write(path, first)
    assert not path.exists()
    assert write(path, again)
    assert first.asked + again.asked == [(0, 0, 64), (0, 64, 128), (0, 128, 150), (1, 0, 64), (2, 0, 1)]
    for index, part in enumerate(again.parts):
        assert np.array_equal(open_features(path).domain(index)["features"], part["features"])
    assert files(path) == ["features.h5"]


def test_what_is_there_is_left_alone(path):
    write(path)
    before, source = path.read_bytes(), Source()
    assert not write(path, source, PROVENANCE | {"torch": "2.9.1", "device": "cuda:0"})
    assert (path.read_bytes(), source.asked) == (before, [])


def test_leftover_parts_of_a_finished_file_are_removed(path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "remove", lambda parts: None)
        write(path)
    assert files(path) == ["features.h5", "features.h5.parts"]
    assert not write(path)
    assert files(path) == ["features.h5"]


@pytest.mark.parametrize("finished", [True, False])
def test_something_else_is_refused_by_its_field(path, finished):
    source = Source(dies_at=None if finished else 2)
    try:
        write(path, source)
    except KeyboardInterrupt:
        assert not finished
    before = {each: each.read_bytes() for each in path.parent.rglob("*") if each.is_file()}
    with pytest.raises(InputError, match="made with seed = 3, expected 4; ") as caught:
        write(path, provenance=PROVENANCE | {"seed": 4})
    name = "features.h5" if finished else "features.h5.parts"
    assert str(caught.value).startswith(f"{path.with_name(name)}: ")
    assert {each: each.read_bytes() for each in path.parent.rglob("*") if each.is_file()} == before


def test_parts_of_another_device_or_size_are_not_mixed(path):
    with pytest.raises(KeyboardInterrupt):
        write(path, Source(dies_at=2))
    with pytest.raises(InputError, match="made with device of unfinished parts = cpu, expected cuda"):
        write(path, provenance=PROVENANCE | {"device": "cuda"})
    with pytest.raises(InputError, match="made with rows of a part = 64, expected 32"):
        write(path, part_rows=32)


def test_another_file_is_not_overwritten(path):
    path.write_text("mine")
    with pytest.raises(InputError, match="not an HDF5 file"):
        write(path)
    assert path.read_text() == "mine"
    path.unlink()
    save_tree(path, "fishr-surface", {})
    with pytest.raises(InputError, match="got a file of kind fishr-surface, expected fishr-features"):
        write(path)
    assert files(path) == ["features.h5"]


def test_a_full_disk_keeps_the_parts(path):
    resource = pytest.importorskip("resource")
    source = Source((Section("photo", "training", 20_000),))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
        with pytest.raises(RunFailed, match=r"features\.h5: could not be written \(File too large\); nothing was left"):
            write(path, source, sections=(Section("photo", "training", 20_000),), part_rows=5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(path) == ["features.h5.parts"]
    again = Source((Section("photo", "training", 20_000),))
    assert write(path, again, sections=(Section("photo", "training", 20_000),), part_rows=5000)
    assert again.asked == []


@pytest.mark.slow
def test_a_flipped_bit_in_the_rows_is_always_noticed(path):
    write(path)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    for name in ("features", "labels", "logits"):
        begin = content.index(Source().parts[0][name].tobytes())
        for place in generator.integers(begin, begin + Source().parts[0][name].nbytes, 5):
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(generator.integers(8))
            path.write_bytes(flipped)
            if name == "labels":
                with pytest.raises(InputError, match="damaged"):
                    open_features(path)
                continue
            cache = open_features(path)
            for rows in ({}, {"start": 0, "stop": 150}):
                with pytest.raises(InputError, match="damaged"):
                    cache.domain(0, **rows)
            # Other domains are as they were.
            cache.domain(1)


@pytest.mark.slow
def test_a_file_that_was_exchanged_is_noticed(path):
    write(path)
    cache = open_features(path)
    path.unlink()
    write(path, provenance=PROVENANCE | {"seed": 4})
    with pytest.raises(InputError, match="is another file than was opened"):
        cache.domain(0)
    with pytest.raises(InputError, match="got domain 3, expected 0 to 2"):
        open_features(path).domain(3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_merged_is_as_made_at_once(tmp_path, dtype):
    base = PROVENANCE | {"dtype": dtype}
    for name, picked in {"whole": (0, 2, 1), "a": (1,), "b": (0, 2)}.items():
        sections = tuple(SECTIONS[i] for i in picked)
        names = tuple(section.name for section in sections)
        write(tmp_path / f"{name}.h5", provenance=base | {"domains": names}, sections=sections)
    merged = merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "merged.h5")
    whole = open_features(tmp_path / "whole.h5")
    assert (merged.key, merged.sections) == (whole.key, whole.sections)
    for index in range(3):
        one, other = merged.domain(index), whole.domain(index)
        for name in one:
            assert np.array_equal(one[name], other[name])
    assert merged.provenance["dtype"] == dtype
    # The same again is no work; something else there is refused.
    merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "merged.h5")
    with pytest.raises(InputError, match="made with domains"):
        merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "a.h5")


@pytest.mark.parametrize(("field", "value"), [("seed", 4), ("dtype", "float16"), ("torch", "2.10")])
def test_what_differs_in_more_than_domains_is_not_merged(tmp_path, field, value):
    write(tmp_path / "a.h5", provenance=PROVENANCE | {"domains": ("photo",)}, sections=SECTIONS[:1])
    write(tmp_path / "b.h5", provenance=PROVENANCE | {"domains": ("sketch",), field: value}, sections=SECTIONS[1:2])
    with pytest.raises(InputError, match=rf"b\.h5: made with {field} = .*; merge files that differ from .*a\.h5"):
        merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.h5", "b.h5"]


@pytest.mark.slow
def test_a_domain_in_two_files_is_not_merged(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}.h5")
    with pytest.raises(InputError, match=r"b\.h5: has domain 'photo', as has .*a\.h5; expected each domain once"):
        merge_features([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "c.h5")


@pytest.mark.parametrize(("width", "rows"), [(1, 16 * 2**20 // 4 // 64 * 64), (512, 8192), (2**20, 64)])
def test_a_part_is_about_16_mebibytes_in_blocks_of_64(width, rows):
    assert rows_a_part({"features": np.zeros((1, width), np.float32)}) == rows


def test_chunks_of_the_final_file_are_whole_rows(path):
    sections = (Section("photo", "training", 1000),)

    def compute(domain, start, stop):
        n = stop - start
        labels = np.zeros(n, np.int64)
        return {"features": np.ones((n, 2048)), "labels": labels, "logits": np.ones((n, 2)), "ids": labels}

    write_features(path, PROVENANCE, HEAD, sections, compute, part_rows=300)
    with h5py.File(path) as file:
        dataset = file["domains/0/features"]
        assert (dataset.chunks, dataset.fletcher32, dataset.compression) == ((64, 2048), True, None)
