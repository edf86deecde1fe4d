"""Archives that are fetched once, and what is said of other things that come in their place."""

import sys
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from fishr.data.sources.drive import download_from_drive
from fishr.data.sources.fetching import fetch, obtain
from fishr.data.sources.image_set import Archive
from fishr.data.sources.sums import read_sums
from fishr.errors import InputError, RunFailed
from fishr.files import digest_of

TWO = (Archive("a.zip", "http://host/a.zip"), Archive("b.zip", "https://drive.google.com/uc?id=0"))


def packed(text: str) -> bytes:
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(zipfile.ZipInfo("photo/dog/1.jpg"), text)
    return made.getvalue()


class Publisher:
    """Sends the same content for each archive, as ``download`` does: by way of a file that is checked."""

    def __init__(self, content: bytes):
        self.content = content
        self.asked: list[str] = []

    def __call__(self, archive, path, check, progress):
        self.asked.append(archive.address)
        part = path.with_name(f"{path.name}.fishr-part")
        part.write_bytes(self.content)
        check(part)
        part.replace(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_archives_come_with_their_sums(tmp_path: Path):
    publisher = Publisher(packed("1"))
    found = obtain(TWO, tmp_path / "data", publisher)
    folder = tmp_path / "data" / "archives"
    assert publisher.asked == [archive.address for archive in TWO]
    assert [path for path, _ in found] == [folder / "a.zip", folder / "b.zip"]
    assert {path.name: digest for path, digest in found} == read_sums(folder)
    assert {digest for _, digest in found} == {digest_of(folder / "a.zip")}
    assert names(folder) == ["SHA256SUMS", "a.zip", "b.zip"]


def test_what_is_there_is_not_fetched_again(tmp_path: Path):
    first = obtain(TWO, tmp_path, Publisher(packed("1")))
    publisher = Publisher(packed("2"))
    assert obtain(TWO, tmp_path, publisher) == first
    assert publisher.asked == []


def test_what_is_there_but_changed_is_refused(tmp_path: Path):
    obtain(TWO, tmp_path, Publisher(packed("1")))
    (tmp_path / "archives" / "b.zip").write_bytes(packed("2"))
    with pytest.raises(RunFailed, match=r"b.zip: its SHA-256 is .*SHA256SUMS records"):
        obtain(TWO, tmp_path, Publisher(packed("1")))


def test_a_colleagues_sum_is_what_is_expected(tmp_path: Path):
    obtain(TWO, tmp_path / "theirs", Publisher(packed("1")))
    mine = tmp_path / "mine" / "archives"
    mine.mkdir(parents=True)
    (mine / "SHA256SUMS").write_bytes((tmp_path / "theirs" / "archives" / "SHA256SUMS").read_bytes())
    with pytest.raises(RunFailed, match=r"a.zip.fishr-part: its SHA-256 is .*, expected "):
        obtain(TWO, tmp_path / "mine", Publisher(packed("2")))
    assert names(mine) == ["SHA256SUMS", "a.zip.fishr-part"]
    assert obtain(TWO, tmp_path / "mine", Publisher(packed("1")))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html><title>Google Drive - Quota exceeded</title>", "a web page"),
        (b"\n <html>log in</html>", "a web page"),
        (b"", "neither a zip nor a tar archive"),
        (b"%PDF-1.5 ...", "neither a zip nor a tar archive"),
    ],
)
def test_what_is_no_archive_is_told_and_removed(tmp_path: Path, content, what):
    with pytest.raises(RunFailed, match=rf"^http://host/a.zip: what came is {what}.* give it with --archive FILE$"):
        obtain(TWO, tmp_path, Publisher(content))
    assert names(tmp_path / "archives") == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/archives: cannot be used .*; give a folder you can write to"):
        obtain(TWO, tmp_path / "file", Publisher(b""))


@pytest.fixture
def gdown(monkeypatch):
    """A stand-in for gdown 6: what it is called with, and what it does."""

    class DownloadError(Exception):
        pass

    def download(url, output, quiet, resume, progress, timeout):
        stand_in.calls.append((url, Path(output).name, quiet, resume))
        progress(2, 4)
        if stand_in.error:
            raise stand_in.error
        Path(output).write_bytes(packed("1"))
        return output

    stand_in = SimpleNamespace(
        calls=[], error=None, download=download, exceptions=SimpleNamespace(DownloadError=DownloadError)
    )
    monkeypatch.setitem(sys.modules, "gdown", stand_in)
    return stand_in


def test_drive_is_asked_by_gdown(tmp_path: Path, gdown):
    told = []
    fetch(TWO[1], tmp_path / "b.zip", lambda part: told.append(part.name), lambda *what: told.append(what))
    assert gdown.calls == [(TWO[1].address, "b.zip.fishr-part", True, True)]
    assert told == [("b.zip", 2, 4), "b.zip.fishr-part"]
    assert (tmp_path / "b.zip").read_bytes() == packed("1")
    assert names(tmp_path) == ["b.zip"]


@pytest.mark.parametrize("error", ["quota", "connection"])
def test_drives_refusal_is_one_line(tmp_path: Path, gdown, error):
    gdown.error = (
        gdown.exceptions.DownloadError("too many\n\n\taccesses") if error == "quota" else OSError("too many accesses")
    )
    with pytest.raises(RunFailed, match=r"not received \(too many accesses\); try again, or .* --archive FILE"):
        download_from_drive(TWO[1].address, tmp_path / "b.zip", print)


def test_without_gdown_both_ways_are_told(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(
        InputError, match=r"run pip install -e '\.\[download\]' in your checkout of fishr, or .* --archive FILE"
    ):
        fetch(TWO[1], tmp_path / "b.zip", print, print)
    assert names(tmp_path) == []
