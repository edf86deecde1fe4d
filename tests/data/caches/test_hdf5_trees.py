"""Trees in files: the same bits back, whole or absent, and whatever is wrong is one line."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import fishr
from fishr import locks
from fishr.data.caches import load_tree
from fishr.data.caches.hdf5 import read_header, save_tree, sole_writer
from fishr.errors import InputError, RunFailed
from fishr.locks import try_lock

KIND = "fishr-analysis"
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | TEXTS
    | st.lists(TEXTS, max_size=3).map(tuple)
    | arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_, np.dtype(">i4")]),
        arrays.array_shapes(min_dims=0, min_side=0, max_side=4),
    )
)
TREES = st.dictionaries(
    NAMES, st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3)), max_size=4
)


def _little(value):
    if isinstance(value, dict):
        return {key: _little(part) for key, part in value.items()}
    return value.astype(value.dtype.newbyteorder("<")) if isinstance(value, np.ndarray) else value


def test_back_to_the_same_bits(file, tree, same):
    assert same(load_tree(file, KIND), tree)
    assert [path.name for path in file.parent.iterdir()] == ["file.h5"]
    header = read_header(file)
    assert (header.kind, header.version, header.library) == (KIND, 1, fishr.__version__)


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(TREES)
def test_any_tree_comes_back(tmp_path, same, tree):
    save_tree(tmp_path / "any.h5", KIND, tree, replace=True)
    assert same(load_tree(tmp_path / "any.h5", KIND), _little(tree))


def test_the_same_tree_is_the_same_file(file, tree, tmp_path):
    save_tree(tmp_path / "again.h5", KIND, tree)
    assert (tmp_path / "again.h5").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.array([1j]), "an array of complex128"),
        (np.array([object()]), "an array of object"),
        (np.array(["text"]), "an array of <U4"),
        (object(), "got a object"),
        ((1, 2), "got a tuple"),
        (2**70, "one of at most 64 bits"),
        ("zero\0byte", "text with a zero byte"),
        ("\ud800", "no Unicode"),
    ],
)
def test_what_has_no_encoding_is_refused(tmp_path, value, told):
    with pytest.raises(InputError, match=told) as caught:
        save_tree(tmp_path / "a.h5", KIND, {"outer": {"inner": value}})
    assert str(caught.value).startswith("/outer/inner: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "a\0"])
def test_names_that_are_paths_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="expected text that is not empty"):
        save_tree(tmp_path / "a.h5", KIND, {name: 1})


def test_what_is_there_gives_way_only_when_asked(file, tree):
    before = file.read_bytes()
    with pytest.raises(InputError, match="exists already"):
        save_tree(file, KIND, {})
    assert file.read_bytes() == before
    save_tree(file, KIND, {"new": 1}, replace=True)
    assert load_tree(file, KIND) == {"new": 1}


@pytest.mark.slow
def test_a_second_writer_is_told(file, tree, forked):
    before = file.read_bytes()
    program = (
        "import sys, pathlib\nfrom fishr.data.caches.hdf5 import save_tree\nfrom fishr.errors import InputError\n"
        "try:\n    save_tree(pathlib.Path(sys.argv[1]), 'fishr-analysis', {}, replace=True)\n"
        "except InputError as error:\n    print(error)\n"
    )
    with sole_writer(file):
        done = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
        assert done.stdout == f"{file}: another process is writing it; wait for it to end, or choose another name\n"
        with pytest.raises(InputError, match="another process is writing"):
            save_tree(file, KIND, {}, replace=True)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["file.h5"]


@pytest.mark.slow
def test_a_lock_that_was_removed_meanwhile_does_not_count(file, monkeypatch):
    """The previous writer may remove it between this one's opening and locking; then a third would make another."""
    lock, races = file.parent / ".file.h5.fishr-lock", [True, True]

    def racing(handle):
        taken = try_lock(handle)
        if races and races.pop():
            lock.unlink()
        return taken

    monkeypatch.setattr(locks, "try_lock", racing)
    with sole_writer(file):
        assert lock.exists()
        with pytest.raises(InputError, match="another process is writing"):
            save_tree(file, KIND, {}, replace=True)


def test_leftovers_of_killed_writers_are_no_obstacle(file):
    (file.parent / ".file.h5.fishr-lock").touch()
    (file.parent / ".file.h5.0123456789abcdef.fishr-partial").write_bytes(b"half")
    save_tree(file, KIND, {"new": 1}, replace=True)
    assert [path.name for path in file.parent.iterdir()] == ["file.h5"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written there \(No such file or directory\)"):
        save_tree(tmp_path / "none" / "a.h5", KIND, {})


@pytest.fixture
def small_files():
    """Let files grow to so many bytes only, as a full disk would."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (limits[0] if size is None else size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("limit", [0, 1000, 100_000, 3_999_000, 4_003_000])
def test_a_full_disk(tmp_path, tree, small_files, limit, there):
    path = tmp_path / "file.h5"
    if there:
        save_tree(path, KIND, tree)
        before = path.read_bytes()
    small_files(limit)
    with pytest.raises(RunFailed) as caught:
        save_tree(path, KIND, {"array": np.ones((500, 1000))}, replace=True)
    small_files(None)
    kept = "the previous file is kept" if there else "nothing was left behind"
    assert str(caught.value) == f"{path}: could not be written (File too large); {kept}"
    assert [each.name for each in tmp_path.iterdir()] == (["file.h5"] if there else [])
    assert not there or path.read_bytes() == before


def test_every_element_says_what_it_is(file):
    with h5py.File(file) as opened:
        found = {}
        opened.visititems(lambda name, item: found.__setitem__(name, item))
        assert len(found) == 19
        for name, item in found.items():
            assert item.attrs["encoding-type"].decode() in ("array", "text", "texts", "number", "mapping", "none"), name
            assert item.attrs["encoding-version"] == 1
            assert isinstance(item, h5py.Group) or len(item.attrs["sha256"]) == 64
            if isinstance(item, h5py.Dataset) and item.ndim and item.size:
                assert item.fletcher32
                assert item.compression is None


@pytest.mark.parametrize(("width", "rows"), [(1024, 128), (1, 2**17), (2**19, 1)])
def test_chunks_are_whole_rows_of_half_a_mebibyte(tmp_path, width, rows):
    save_tree(tmp_path / "a.h5", KIND, {"array": np.zeros((max(rows, 3), width), np.float32)})
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["array"].chunks == (rows, width)


def test_a_writer_that_cannot_verify_keeps_the_previous_file(file, monkeypatch):
    from fishr.data.caches import hdf5

    before = file.read_bytes()
    monkeypatch.setattr(hdf5, "_digest", _counting())
    with pytest.raises(RunFailed, match=r"what was written cannot be read.*the previous file is kept"):
        save_tree(file, KIND, {"new": 1}, replace=True)
    assert file.read_bytes() == before
    assert [path.name for path in Path(file.parent).iterdir()] == ["file.h5"]


def _counting():
    made = []

    def digest(file):
        made.append(file)
        return str(len(made))

    return digest
