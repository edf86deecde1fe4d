import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from fishr.data.idx import CHUNK, read_labels, read_pictures
from fishr.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
PICTURES = struct.pack(">4I", 2051, 5, 28, 28) + PIXELS.tobytes()
LABELS = struct.pack(">2I", 2049, 4) + bytes([7, 0, 9, 4])


@pytest.mark.parametrize("every", [1, 2, 3])
def test_raw_and_gzip_give_the_same_pictures(tmp_path: Path, every: int):
    (tmp_path / "raw").write_bytes(PICTURES)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(PICTURES, mtime=0))
    for name in ("raw", "packed.gz"):
        assert np.array_equal(read_pictures(tmp_path / name, every), PIXELS[:, ::every, ::every])


def test_raw_and_gzip_give_the_same_labels(tmp_path: Path):
    (tmp_path / "raw").write_bytes(LABELS)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(LABELS, mtime=0))
    for name in ("raw", "packed.gz"):
        assert read_labels(tmp_path / name).tolist() == [7, 0, 9, 4]


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_chunks_join_without_a_seam(tmp_path: Path, count: int):
    pixels = (np.arange(count, dtype=np.uint32)[:, None, None] % 251 + np.zeros((28, 28), int)).astype(np.uint8)
    path = tmp_path / "many"
    path.write_bytes(struct.pack(">4I", 2051, count, 28, 28) + pixels.tobytes())
    assert np.array_equal(read_pictures(path, 2), pixels[:, ::2, ::2])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated, 0 bytes are less than an MNIST header"),
        (PICTURES[:15], "truncated, 15 bytes are less than an MNIST header"),
        (PICTURES[:-1], "truncated, got 3919 bytes after the header, expected 3920"),
        (PICTURES[:16], "truncated, got 0 bytes after the header, expected 3920"),
        (PICTURES + b"x", "longer than the 3920 bytes that its header says"),
        (struct.pack(">4I", 2049, 5, 28, 28) + PIXELS.tobytes(), "magic number is 2049, expected 2051"),
        (struct.pack(">4I", 2051, 5, 32, 32) + PIXELS.tobytes(), "pictures are 32x32, expected 28x28"),
        (struct.pack(">4I", 2051, 0, 28, 28), "its header says 0 pictures"),
        (struct.pack(">4I", 2051, 2**32 - 1, 28, 28) + PIXELS.tobytes(), "truncated, got 3920 bytes"),
        (b"<!DOCTYPE html><html>Not found</html>", "magic number is 1008813135, expected 2051 for MNIST pictures"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_not_mnist_pictures_are_refused(tmp_path: Path, content, reason, packed):
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    with pytest.raises(InputError, match=reason) as caught:
        read_pictures(path, 2)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LABELS[:7], "truncated, 7 bytes are less than an MNIST header"),
        (LABELS[:-1], "truncated, got 3 bytes after the header, expected 4"),
        (LABELS + b"\0", "longer than the 4 bytes that its header says"),
        (PICTURES, "magic number is 2051, expected 2049 for MNIST labels"),
        (LABELS[:-1] + b"\x0a", "got label 10, expected digits from 0 to 9"),
    ],
)
def test_files_that_are_not_mnist_labels_are_refused(tmp_path: Path, content, reason):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_labels(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(PICTURES, mtime=0)[:-9], "truncated, the compressed data ends early"),
        (gzip.compress(PICTURES, mtime=0)[:-8] + bytes(8), "not a whole gzip file"),
        (gzip.compress(PICTURES, mtime=0)[:40] + bytes(40), "file.gz: "),
        (PICTURES, "not a whole gzip file"),
    ],
)
def test_damaged_gzip_files_are_refused(tmp_path: Path, content, reason):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_pictures(path, 2)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read \\(Is a directory\\)"):
        read_labels(tmp_path)
