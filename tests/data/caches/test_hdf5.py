"""Files that are not what was written: whatever is wrong is one line, and nothing wrong is ever read."""

import os
import pickle
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from fishr.data.caches import describe, load_tree
from fishr.errors import InputError

KIND = "fishr-analysis"


def _refusal(path, kind=KIND):
    with pytest.raises(InputError) as caught:
        load_tree(path, kind)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_absent_and_foreign_files(tmp_path):
    path = tmp_path / "a.h5"
    assert "no such file" in _refusal(path)
    assert "no such file" in _refusal(tmp_path)
    for content in (b"", b"text", pickle.dumps({}), b"\x89HDF\r\n\x1a"):
        path.write_bytes(content)
        assert "not an HDF5 file" in _refusal(path)
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    assert "an HDF5 file of another program" in _refusal(path)
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
    assert "an HDF5 file of another program" in _refusal(path)


def test_another_kind(file):
    assert f"got a file of kind {KIND}, expected fishr-surface" in _refusal(file, "fishr-surface")


@pytest.fixture
def changed(file):
    """The file after a change that HDF5 itself has no objection to."""

    def change(how):
        with h5py.File(file, "r+", libver="v110") as opened:
            how(opened)
        return file

    return change


def _add_link(link):
    def change(file):
        file["more"] = link

    return change


def _add(name, **arguments):
    def change(file):
        dataset = file.create_dataset(name, **arguments)
        dataset.attrs["encoding-type"], dataset.attrs["encoding-version"] = np.bytes_(b"array"), 1
        dataset.attrs["sha256"] = np.bytes_(b"0" * 64)

    return change


def _set(name, value):
    return lambda file: file.attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (_set("encoding-version", 2), f"got version 2 of {KIND}, expected 1; read it with the fishr that wrote it"),
        (_set("complete", False), "its writing was never completed"),
        (lambda file: file.attrs.__delitem__("complete"), "its writing was never completed"),
        (_set("library", np.bytes_(b"9.9.9")), "its structure is not what was written"),
        (lambda file: file.attrs.__delitem__("library"), "it does not say what it is"),
        (lambda file: file.__delitem__("array"), "its structure is not what was written"),
        (lambda file: file["array"].attrs.__setitem__("sha256", np.bytes_(b"0" * 64)), "its structure is not"),
        (lambda file: file.move("array", "other"), "its structure is not what was written"),
        (lambda file: file["array"].__setitem__((3, 3), 9), "/array: its bytes are not those that were written"),
        (lambda file: file["text"].__setitem__((), b"other"), "/text: its bytes are not those that were written"),
        (_add_link(h5py.SoftLink("/array")), "more leads elsewhere"),
        (_add_link(h5py.ExternalLink("other.h5", "/array")), "more leads elsewhere"),
        (lambda file: file.__setitem__("more", file["nested"]), "its structure is not what was written"),
    ],
)
def test_what_was_changed_since_is_refused(changed, how, told):
    assert told in _refusal(changed(how))


def _resealed(file):
    """Whoever forges a file can make its digest fit."""
    from fishr.data.caches.encoding import set_text
    from fishr.data.caches.hdf5 import _digest

    set_text(file, "digest", _digest(file))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"shape": (2**40, 2**10), "dtype": "f8", "chunks": (1, 2**10)}, "less is stored than its shape"),
        ({"shape": (2**50,), "dtype": "f8"}, "less is stored than its shape"),
        ({"data": [b"gASVBAAAAAAAAABLAy4="], "dtype": h5py.string_dtype()}, "expected numbers or text"),
        ({"data": np.array([b"gASVBAAA"], "V8")}, "expected numbers or text"),
        ({"shape": (4,), "dtype": "f8", "external": [("/etc/hostname", 0, 32)]}, "its bytes are in another file"),
        ({"data": np.ones(3), "dtype": "f8"}, "its bytes are not those that were written"),
    ],
)
def test_forgeries_are_refused(changed, arguments, told):
    def how(file):
        _add("more", **arguments)(file)
        _resealed(file)

    assert told in _refusal(changed(how))


def test_an_unknown_encoding_is_refused(changed):
    def how(file):
        file["array"].attrs["encoding-type"] = np.bytes_(b"pickle")
        _resealed(file)

    assert "/array: got encoding 'pickle', expected one of array, text" in _refusal(changed(how))

    def newer(file):
        file["array"].attrs["encoding-version"] = 2
        _resealed(file)

    assert "/array: got encoding version 2, expected 1" in _refusal(changed(newer))


def test_cut_short_anywhere(file):
    content = file.read_bytes()
    for size in [*range(0, len(content), 211), len(content) - 1]:
        file.write_bytes(content[:size])
        _refusal(file)


FLIPS = """
import pathlib, random, sys
import numpy as np
from fishr.data.caches import describe, load_tree
from fishr.errors import InputError

path, seed, flips = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
content, draw = path.read_bytes(), random.Random(seed)
def leaves(tree, at=""):
    if isinstance(tree, dict):
        yield at, tuple(tree)
        for key, value in tree.items():
            yield from leaves(value, f"{at}/{key}")
    else:
        yield at, (tree.dtype.str, tree.shape, tree.tobytes()) if isinstance(tree, np.ndarray) else repr(tree)
whole = list(leaves(load_tree(path, "fishr-analysis")))
array = content.index(load_tree(path, "fishr-analysis")["array"].tobytes())
detected = data = 0
for flip in range(flips):
    place = draw.randrange(array, array + 40 * 7 * 4) if flip % 5 == 0 else draw.randrange(len(content))
    flipped = bytearray(content)
    flipped[place] ^= 1 << draw.randrange(8)
    path.write_bytes(flipped)
    try:
        found = list(leaves(load_tree(path, "fishr-analysis")))
        assert found == whole, place
        assert not array <= place < array + 40 * 7 * 4, place
    except InputError as error:
        assert "\\n" not in str(error)
        detected += 1
print(detected)
"""


@pytest.mark.slow
def test_a_flipped_bit_is_noticed_or_harmless(file, forked):
    """In a process of its own: HDF5 is C, and may crash or read for ever on what it does not expect."""
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, file, "1", "120"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert 80 < int(done.stdout) < 120


WRITER = """
import sys, h5py
file = h5py.File(sys.argv[1], "r+")
print("open", flush=True)
input()
"""


def test_a_file_that_another_process_writes_is_in_use_and_not_damaged(file):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "open\n"
        assert "in use by another process" in _refusal(file)
    finally:
        process.kill()
        process.communicate()
    assert "after a crash of that process" in _refusal(file)


NO_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { errno = ENOLCK; return -1; }
"""


@pytest.mark.slow
def test_a_file_system_without_locks_is_read(file, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler to stand in for a file system without locks")
    (tmp_path / "locks.c").write_text(NO_LOCKS)
    library = tmp_path / "locks.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "locks.c"], check=True)
    program = "import sys, pathlib\nfrom fishr.data.caches import load_tree\n"
    program += "print(len(load_tree(pathlib.Path(sys.argv[1]), 'fishr-analysis')))"
    read = [sys.executable, "-c", program, file]
    # Named from its own folder, because the list of libraries has no quotes for a space in a path.
    here = {"cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run(read, env={**os.environ, "LD_PRELOAD": "./locks.so"}, **here)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(load_tree(file, KIND))
    forced = {"LD_PRELOAD": "./locks.so", "HDF5_USE_FILE_LOCKING": "TRUE"}
    done = subprocess.run(read, env={**os.environ, **forced}, **here)
    assert "cannot be locked" in done.stderr.splitlines()[-1]


def test_an_unreadable_file(file, unprivileged):
    file.chmod(0)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
        describe(file)
