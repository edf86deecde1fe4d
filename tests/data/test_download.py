import hashlib
import os
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest

from fishr.data import download
from fishr.data.download import MD5, MIRROR, RAW_MD5, download_mnist, verify_mnist
from fishr.errors import InputError, RunFailed

CONTENT = {name: name.encode() * 3 for name in MD5}


@pytest.fixture
def stand_in(monkeypatch):
    """Sums of small stand-in files, so that a right download can be shown without a network."""
    sums = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(download, "MD5", sums)


class Mirror:
    """Serves the stand-in files in small pieces and remembers what was asked for."""

    def __init__(self):
        self.asked: list[str] = []

    def __call__(self, url: str):
        assert url.startswith(MIRROR)
        name = url.removeprefix(MIRROR)
        self.asked.append(name)
        content = CONTENT[name]
        return (content[start : start + 7] for start in range(0, len(content), 7))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_the_sums_are_torchvisions():
    resources = pytest.importorskip("torchvision.datasets").MNIST.resources
    assert dict(resources) == MD5


def test_the_real_files_have_the_names_that_are_read():
    from fishr.data.mnist import LABELS, PICTURES

    assert {f"{PICTURES}.gz", f"{LABELS}.gz"} <= set(MD5)


def test_four_files_arrive_whole_in_torchvisions_layout(tmp_path: Path, stand_in):
    paths = download_mnist(tmp_path / "new", Mirror())
    assert [path.name for path in paths] == list(CONTENT)
    for path in paths:
        assert path.parent == tmp_path / "new" / "MNIST" / "raw"
        assert path.read_bytes() == CONTENT[path.name]
    assert files(tmp_path) == sorted(CONTENT)


def test_right_files_are_kept_and_only_missing_ones_fetched(tmp_path: Path, stand_in):
    paths = download_mnist(tmp_path, Mirror())
    before = paths[0].stat().st_mtime_ns
    paths[2].unlink()
    mirror = Mirror()
    download_mnist(tmp_path, mirror)
    assert mirror.asked == [paths[2].name]
    assert paths[0].stat().st_mtime_ns == before


def test_a_wrong_file_is_refused_and_left_as_it_is(tmp_path: Path, stand_in):
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    mirror = Mirror()
    with pytest.raises(InputError, match=r"its MD5 is .*, expected .*; move it away") as caught:
        download_mnist(tmp_path, mirror)
    assert path.read_bytes() == b"mine"
    assert mirror.asked == []
    assert str(path) in str(caught.value)


def broken(error: Exception):
    def fetch(url: str):
        yield b"half"
        raise error

    return fetch


@pytest.mark.parametrize(
    ("fetch", "reason"),
    [
        (broken(URLError("Name or service\nnot known")), "not received .*Name or service not known"),
        (broken(TimeoutError()), "not received .TimeoutError"),
        (broken(IncompleteRead(b"")), "not received .IncompleteRead"),
        (lambda url: [b"something else"], "what came has MD5 .*, expected "),
        (lambda url: [], "what came has MD5 d41d8cd98f00b204e9800998ecf8427e"),
    ],
)
def test_a_failing_network_leaves_nothing_behind(tmp_path: Path, fetch, reason):
    with pytest.raises(RunFailed, match=reason) as caught:
        download_mnist(tmp_path, fetch)
    assert str(caught.value).startswith(f"{MIRROR}train-images-idx3-ubyte.gz: ")
    assert f"copy torchvision's MNIST/raw folder to {tmp_path / 'MNIST' / 'raw'}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == []


def test_an_interruption_leaves_nothing_behind(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        download_mnist(tmp_path, broken(KeyboardInterrupt()))
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/MNIST/raw: cannot be used .*; give a folder"):
        download_mnist(tmp_path / "file", Mirror())


def test_a_full_disk_is_not_blamed_on_the_network(tmp_path: Path, stand_in, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"train-images-idx3-ubyte.gz: could not be written .No space left on device"):
        download_mnist(tmp_path, Mirror())
    assert files(tmp_path) == []


@pytest.fixture
def raw_stand_in(stand_in, monkeypatch):
    sums = {name.removesuffix(".gz"): hashlib.md5(name.encode()).hexdigest() for name in MD5}
    monkeypatch.setattr(download, "RAW_MD5", sums)


def test_files_are_verified_raw_or_packed(tmp_path: Path, stand_in, raw_stand_in):
    paths = download_mnist(tmp_path, Mirror())
    assert set(verify_mnist(tmp_path)) == set(paths)
    raw = paths[0].with_suffix("")
    paths[0].unlink()
    raw.write_text(paths[0].name)
    assert set(verify_mnist(tmp_path)) == {raw, *paths[1:]}


def test_other_files_than_mnists_are_named(tmp_path: Path, stand_in, raw_stand_in):
    paths = download_mnist(tmp_path, Mirror())
    for path in (paths[1], paths[3]):
        path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"not MNIST's, by its MD5; move it away") as caught:
        verify_mnist(tmp_path)
    assert str(caught.value).startswith(f"{paths[1]}, {paths[3]}: ")
    assert [path.read_bytes() for path in (paths[1], paths[3])] == [b"mine", b"mine"]


def test_a_missing_file_is_no_verified_one(tmp_path: Path, stand_in, raw_stand_in):
    download_mnist(tmp_path, Mirror())[3].unlink()
    with pytest.raises(InputError, match=r"found no t10k-labels-idx1-ubyte"):
        verify_mnist(tmp_path)


def test_the_real_files_have_the_sums(mnist_dir: Path):
    assert verify_mnist(mnist_dir)
    assert {f"{name}.gz" for name in RAW_MD5} == set(MD5)
