"""MNIST's files: read whatever their packing, refused when damaged, downloaded from a stand-in of the mirror."""

import gzip
import hashlib
import io
import os
import struct
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from fishr.data import mnist_files
from fishr.data.mnist_files import MD5, MIRROR, MIRRORS, RAW_MD5, download_mnist, read_images, read_labels, verify_mnist
from fishr.errors import InputError, RunFailed

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
IMAGE_FILE = struct.pack(">4I", 2051, 5, 28, 28) + PIXELS.tobytes()
LABEL_FILE = struct.pack(">2I", 2049, 4) + bytes([7, 0, 9, 4])


@pytest.mark.parametrize("every", [1, 2, 3])
def test_raw_and_gzip_give_the_same_images(tmp_path: Path, every: int):
    (tmp_path / "raw").write_bytes(IMAGE_FILE)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(IMAGE_FILE, mtime=0))
    for name in ("raw", "packed.gz"):
        assert np.array_equal(read_images(tmp_path / name, every), PIXELS[:, ::every, ::every])


def test_raw_and_gzip_give_the_same_labels(tmp_path: Path):
    (tmp_path / "raw").write_bytes(LABEL_FILE)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(LABEL_FILE, mtime=0))
    for name in ("raw", "packed.gz"):
        assert read_labels(tmp_path / name).tolist() == [7, 0, 9, 4]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated, 0 bytes are less than an MNIST header"),
        (IMAGE_FILE[:15], "truncated, 15 bytes are less than an MNIST header"),
        (IMAGE_FILE[:-1], "truncated, got 3919 bytes after the header, expected 3920"),
        (IMAGE_FILE[:16], "truncated, got 0 bytes after the header, expected 3920"),
        (IMAGE_FILE + b"x", "longer than the 3920 bytes that its header says"),
        (struct.pack(">4I", 2049, 5, 28, 28) + PIXELS.tobytes(), "magic number is 2049, expected 2051"),
        (struct.pack(">4I", 2051, 5, 32, 32) + PIXELS.tobytes(), "images are 32x32, expected 28x28"),
        (struct.pack(">4I", 2051, 0, 28, 28), "its header says 0 images"),
        (struct.pack(">4I", 2051, 2**32 - 1, 28, 28) + PIXELS.tobytes(), "truncated, got 3920 bytes"),
        (b"<!DOCTYPE html><html>Not found</html>", "magic number is 1008813135, expected 2051 for MNIST images"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_that_are_not_mnist_images_are_refused(tmp_path: Path, content, reason, packed):
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    with pytest.raises(InputError, match=reason) as caught:
        read_images(path, 2)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LABEL_FILE[:7], "truncated, 7 bytes are less than an MNIST header"),
        (LABEL_FILE[:-1], "truncated, got 3 bytes after the header, expected 4"),
        (LABEL_FILE + b"\0", "longer than the 4 bytes that its header says"),
        (IMAGE_FILE, "magic number is 2051, expected 2049 for MNIST labels"),
        (LABEL_FILE[:-1] + b"\x0a", "got label 10, expected digits from 0 to 9"),
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
        (gzip.compress(IMAGE_FILE, mtime=0)[:-9], "truncated, the compressed data ends early"),
        (gzip.compress(IMAGE_FILE, mtime=0)[:-8] + bytes(8), "not a whole gzip file"),
        (gzip.compress(IMAGE_FILE, mtime=0)[:40] + bytes(40), "file.gz: "),
        (IMAGE_FILE, "not a whole gzip file"),
    ],
)
def test_damaged_gzip_files_are_refused(tmp_path: Path, content, reason):
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        read_images(path, 2)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_opened_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read \\(Is a directory\\)"):
        read_labels(tmp_path)


CONTENT = {name: name.encode() * 3 for name in MD5}


FIRST = "train-images-idx3-ubyte.gz"


class Mirror:
    """Sends the stand-in files, or ``content`` and then an error, and records the requests."""

    def __init__(self):
        self.requests: list[str] = []
        self.content: bytes | None = None
        self.error: BaseException | None = None
        self.dead = ""

    def __call__(self, request, timeout):
        mirror, slash, name = request.full_url.rpartition("/")
        self.requests.append(name)
        if mirror + slash == self.dead:
            raise URLError("Name or service not known")
        assert mirror + slash in MIRRORS
        return Answer(CONTENT[name] if self.content is None else self.content, self.error)


class Answer(io.BytesIO):
    headers = {}  # noqa: RUF012

    def __init__(self, content: bytes, error: BaseException | None):
        super().__init__(content)
        self.error = error

    def read(self, *size):
        chunk = super().read(*size)
        if self.error and not chunk:
            raise self.error
        return chunk


@pytest.fixture
def mirror(monkeypatch):
    made = Mirror()
    monkeypatch.setattr("urllib.request.urlopen", made)
    return made


@pytest.fixture
def stand_in(monkeypatch, mirror):
    """Sums of small stand-in files, so that a correct download needs no network."""
    for name, of in (("MD5", CONTENT), ("RAW_MD5", {key.removesuffix(".gz"): key.encode() for key in MD5})):
        sums = {key: hashlib.md5(content).hexdigest() for key, content in of.items()}
        monkeypatch.setattr(mnist_files, name, sums)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_sums_and_mirrors_are_torchvisions():
    found = pytest.importorskip("torchvision.datasets").MNIST
    assert dict(found.resources) == MD5
    assert tuple(found.mirrors) == MIRRORS


def test_the_second_mirror_serves_if_the_first_fails(tmp_path: Path, stand_in, mirror):
    lines: list[str] = []
    mirror.dead = MIRROR
    paths = download_mnist(tmp_path, lines.append)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert len(lines) == 8
    assert lines[0].startswith(f"{FIRST}: {MIRROR}{FIRST}: not received (<urlopen error Name or service not known>")
    assert lines[0].endswith(f"; now from {MIRRORS[1]}")
    assert lines[1] == f"{FIRST}: from {MIRRORS[1]}"
    mirror.dead = ""
    for path in paths:
        path.unlink()
    lines.clear()
    download_mnist(tmp_path, lines.append)
    assert lines == [f"{name}: from {MIRROR}" for name in CONTENT]


def test_four_files_arrive_whole_in_torchvisions_layout(tmp_path: Path, stand_in):
    seen = dict[str, tuple[int, int | None]]()
    paths = download_mnist(tmp_path / "new", progress=lambda name, done, total: seen.update({name: (done, total)}))
    assert [path.name for path in paths] == list(CONTENT)
    assert {name: done for name, (done, _) in seen.items()} == {name: len(c) for name, c in CONTENT.items()}
    for path in paths:
        assert path.parent == tmp_path / "new" / "MNIST" / "raw"
        assert path.read_bytes() == CONTENT[path.name]
    assert files(tmp_path) == sorted(CONTENT)


def test_right_files_are_kept_and_only_missing_ones_fetched(tmp_path: Path, stand_in, mirror):
    paths = download_mnist(tmp_path)
    before = paths[0].stat().st_mtime_ns
    paths[2].unlink()
    mirror.requests.clear()
    download_mnist(tmp_path)
    assert mirror.requests == [paths[2].name]
    assert paths[0].stat().st_mtime_ns == before


def test_a_wrong_file_is_refused_and_left_as_it_is(tmp_path: Path, stand_in, mirror):
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"its MD5 is .*, expected .*; move it away") as caught:
        download_mnist(tmp_path)
    assert path.read_bytes() == b"mine"
    assert mirror.requests == []
    assert str(path) in str(caught.value)


KEPT = [f"{FIRST}.fishr-part", f"{FIRST}.fishr-part.tag"]


@pytest.mark.parametrize(
    ("content", "error", "reason", "kept"),
    [
        (b"half", URLError("Name or service\nnot known"), "not received .*Name or service not known", KEPT),
        (b"half", TimeoutError(), "not received .TimeoutError", KEPT),
        (b"half", IncompleteRead(b""), "not received .IncompleteRead", KEPT),
        (b"something else", None, "the download has MD5 .*, expected ", []),
        (b"", None, "the download has MD5 d41d8cd98f00b204e9800998ecf8427e", []),
    ],
)
def test_a_failing_network_leaves_no_wrong_file(tmp_path: Path, mirror, content, error, reason, kept):
    mirror.content, mirror.error = content, error
    with pytest.raises(RunFailed, match=reason) as caught:
        download_mnist(tmp_path)
    assert str(caught.value).startswith(f"{MIRROR}{FIRST}: ")
    assert f"copy torchvision's MNIST/raw folder to {tmp_path / 'MNIST' / 'raw'}" in str(caught.value)
    assert str(caught.value).endswith(f"; {MIRRORS[1]} failed too")
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == kept


def test_an_interrupted_download_resumes(tmp_path: Path, stand_in, mirror):
    mirror.content, mirror.error = CONTENT[FIRST][:9], KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        download_mnist(tmp_path)
    assert files(tmp_path) == KEPT
    mirror.content = mirror.error = None
    assert [path.read_bytes() for path in download_mnist(tmp_path)] == list(CONTENT.values())
    assert files(tmp_path) == sorted(CONTENT)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/MNIST/raw: cannot be used .*; give a folder"):
        download_mnist(tmp_path / "file")


def test_a_full_disk_is_not_blamed_on_the_network(tmp_path: Path, stand_in, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"train-images-idx3-ubyte.gz: cannot be written .No space left on device"):
        download_mnist(tmp_path)
    assert FIRST not in files(tmp_path)


def test_files_are_verified_raw_or_packed(tmp_path: Path, stand_in):
    paths = download_mnist(tmp_path)
    assert set(verify_mnist(tmp_path)) == set(paths)
    raw = paths[0].with_suffix("")
    paths[0].unlink()
    raw.write_text(paths[0].name)
    assert set(verify_mnist(tmp_path)) == {raw, *paths[1:]}


def test_other_files_than_mnists_are_named(tmp_path: Path, stand_in):
    paths = download_mnist(tmp_path)
    for path in (paths[1], paths[3]):
        path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"not MNIST's, by its MD5; move it away") as caught:
        verify_mnist(tmp_path)
    assert str(caught.value).startswith(f"{paths[1]}, {paths[3]}: ")
    assert [path.read_bytes() for path in (paths[1], paths[3])] == [b"mine", b"mine"]


def test_a_missing_file_is_no_verified_one(tmp_path: Path, stand_in):
    download_mnist(tmp_path)[3].unlink()
    with pytest.raises(InputError, match=r"found no t10k-labels-idx1-ubyte"):
        verify_mnist(tmp_path)


def test_the_real_files_have_the_sums(mnist_dir: Path):
    assert verify_mnist(mnist_dir)
    assert {f"{name}.gz" for name in RAW_MD5} == set(MD5)
