"""Image caches: resumable, whole or absent, checked, and open in one process at a time."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from fishr.data.caches import Section, describe, open_features, open_images, verify
from fishr.data.caches.image_cache import CachedImages, write_images
from fishr.data.caches.unfinished import Parts
from fishr.errors import InputError

# Parts have 64 rows at least: three of one domain and one of the other.
ROWS = (150, 20)
SIZE = 6
SECTIONS = [Section("art", "training", ROWS[0]), Section("photo", "training", ROWS[1])]
PROVENANCE = {"size": SIZE, "classes": ("cat", "dog"), "domains": ("art", "photo"), "images_sha256": "1" * 64}


def pixels(domain, start, stop):
    rows = [
        np.random.default_rng((domain, row)).integers(0, 256, (SIZE, SIZE, 3), np.uint8) for row in range(start, stop)
    ]
    return np.stack(rows)


def write(path, compute=pixels, provenance=PROVENANCE, **more):
    names = [tuple(f"{section.name}/ä{row}.jpg" for row in range(section.rows)) for section in SECTIONS]
    labels = [np.arange(section.rows) % 2 for section in SECTIONS]
    # One image a block of rows would be small: a part is 16 MiB otherwise.
    return write_images(path, provenance, SECTIONS, names, labels, compute, **more)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("fishr.data.caches.domain_writing.PART_BYTES", 1)


@pytest.fixture
def file(tmp_path):
    assert write(tmp_path / "images.h5")
    return tmp_path / "images.h5"


def test_what_is_written_is_read(file):
    cache = open_images(file)
    assert (cache.size, cache.classes, cache.sections) == (SIZE, ("cat", "dog"), tuple(SECTIONS))
    assert cache.provenance["images_sha256"] == "1" * 64
    for domain, count in enumerate(ROWS):
        paths, labels = cache.domain(domain)
        images = CachedImages(file, cache.key, domain, paths)
        assert labels.tolist() == [row % 2 for row in range(count)]
        assert labels.dtype == np.int64
        assert paths[-1] == f"{SECTIONS[domain].name}/ä{count - 1}.jpg"
        for row in (0, count - 1, count // 2):
            assert np.array_equal(images.read(row), pixels(domain, row, row + 1)[0])
    assert verify(file) == ()


def test_chunks_are_of_whole_images_with_checksums(tmp_path):
    big = {**PROVENANCE, "size": 224}
    write_images(
        tmp_path / "a.h5",
        big,
        [Section("art", "training", 5)],
        [tuple("abcde")],
        [np.arange(5) % 2],
        lambda domain, start, stop: np.zeros((stop - start, 224, 224, 3), np.uint8),
    )
    with h5py.File(tmp_path / "a.h5") as opened:
        images = opened["domains/0/images"]
        assert (images.shape, images.dtype, images.chunks) == ((5, 224, 224, 3), np.uint8, (1, 224, 224, 3))
        assert images.fletcher32
        assert images.compression is None
        assert opened.attrs["encoding-type"] == b"fishr-images"
    description = describe(tmp_path / "a.h5")
    assert description.header.kind == "fishr-images"
    assert description.sections


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(tmp_path, file):
    asked, path = [], tmp_path / "resumed.h5"

    def stopping(domain, start, stop):
        asked.append((domain, start, stop))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return pixels(domain, start, stop)

    with pytest.raises(KeyboardInterrupt):
        write(path, stopping)
    assert not path.exists()
    assert write(path, stopping)
    assert asked == [(0, 0, 64), (0, 64, 128), (0, 128, 150), (0, 128, 150), (1, 0, 20)]
    one, other = open_images(path), open_images(file)
    assert one.key == other.key
    for domain, count in enumerate(ROWS):
        resumed, whole = (CachedImages(place, one.key, domain, ()) for place in (path, file))
        for row in range(0, count, 9):
            assert np.array_equal(resumed.read(row), whole.read(row))
    assert not list(tmp_path.glob("*.parts"))
    assert not write(path, stopping)
    assert len(asked) == 5


@pytest.mark.slow
def test_killed_in_earnest_it_goes_on(tmp_path):
    path, asked = tmp_path / "killed.h5", []
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import fishr.data.caches.domain_writing as writing
writing.PART_BYTES = 1
from test_image_cache import write
from pathlib import Path
told = []
write(Path({str(path)!r}), progress=lambda *n: told.append(n) or len(told) < 2 or os.kill(os.getpid(), 9))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not path.exists()
    assert Parts.existing(path).done == (0, 1)

    def noting(domain, start, stop):
        asked.append((domain, start))
        return pixels(domain, start, stop)

    assert write(path, noting)
    assert asked == [(0, 128), (1, 0)]
    assert verify(path) == ()


def test_made_of_something_else_it_is_refused(file):
    with pytest.raises(InputError, match=r"images.h5: made with images_sha256 = 111111111111…, expected 222222222222…"):
        write(file, provenance={**PROVENANCE, "images_sha256": "2" * 64})
    with pytest.raises(InputError, match="made with size = 6, expected 7"):
        write(file, provenance={**PROVENANCE, "size": 7})
    assert open_images(file).provenance["size"] == SIZE


def test_a_flipped_bit_is_told_in_one_line(file):
    content = bytearray(file.read_bytes())
    at = content.index(pixels(0, 70, 71).tobytes())
    content[at + 5] ^= 1
    file.write_bytes(content)
    key = open_images(file).key
    damaged, whole = (CachedImages(file, key, domain, ()) for domain in (0, 1))
    with pytest.raises(InputError, match=r"images.h5: cut short or damaged \(.*\); make it again") as caught:
        damaged.read(70)
    assert "\n" not in str(caught.value)
    assert np.array_equal(whole.read(3), pixels(1, 3, 4)[0])
    assert len(verify(file)) == 1


def test_another_file_in_its_place_is_noticed(file):
    key = open_images(file).key
    with pytest.raises(InputError, match="is another file than was opened"):
        CachedImages(file, "0" * 64, 0, ()).read(0)
    with pytest.raises(InputError, match="no such file"):
        CachedImages(file.with_name("gone.h5"), key, 0, ()).read(0)
    with pytest.raises(InputError, match="got a file of kind fishr-images, expected fishr-features"):
        open_features(file)


def test_threads_and_pickles(file):
    rows = CachedImages(file, open_images(file).key, 0, ())
    rows.read(0)
    again = pickle.loads(pickle.dumps(rows))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(again.read, [*range(ROWS[0])] * 4))
    assert np.array_equal(np.stack(found), np.tile(pixels(0, 0, ROWS[0]), (4, 1, 1, 1)))


def _sum(rows):
    return int(rows.read(4).sum()), rows._open.process == os.getpid()


def test_a_fork_opens_its_own(file):
    rows = CachedImages(file, open_images(file).key, 1, ())
    expected = int(rows.read(4).sum())
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sending.send(_sum(rows)))
    process.start()
    assert receiving.poll(60)
    assert receiving.recv() == (expected, True)
    process.join(60)
    assert process.exitcode == 0
    assert _sum(rows) == (expected, True)


@pytest.mark.slow
def test_an_interpreter_ends_quietly_with_its_file_open(file):
    script = f"""
from pathlib import Path
from fishr.data.caches.image_cache import CachedImages, open_images
path = Path({str(file)!r})
rows = CachedImages(path, open_images(path).key, 0, ())
print(rows.read(3).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=True, text=True)
    assert (done.stdout, done.stderr) == (f"({SIZE}, {SIZE}, 3)\n", "")


def test_a_row_that_was_checked_is_not_read_by_h5py_again(tmp_path, monkeypatch):
    """h5py keeps all threads waiting. Rows of 4 KiB and more have a chunk of the file each."""
    monkeypatch.setattr(sys.modules[__name__], "SIZE", 40)
    path = tmp_path / "large.h5"
    assert write(path, provenance={**PROVENANCE, "size": SIZE})
    rows, order = CachedImages(path, open_images(path).key, 0, ()), [*range(0, ROWS[0], 7)]
    first = np.stack([rows.read(row) for row in order])
    monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
    again = [rows.read(row) for row in order]
    assert np.array_equal(first, np.stack(again))
    assert np.array_equal(first, pixels(0, 0, ROWS[0])[order])
    assert all(row.flags.writeable and row.dtype == np.uint8 for row in again)


def test_the_file_is_opened_once(file, monkeypatch):
    opened, count = h5py.File, []
    monkeypatch.setattr(h5py, "File", lambda *a, **k: count.append(1) or opened(*a, **k))
    rows = CachedImages(file, "x", 0, ())
    assert not count
    rows = CachedImages(file, open_images(file).key, 0, ())
    count.clear()
    for row in range(5):
        rows.read(row)
    assert len(count) == 1
