"""Downloads from Google Drive, by a stand-in for gdown."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fishr.data.sources.downloading import download
from fishr.errors import InputError, RunFailed

DRIVE = "https://drive.google.com/uc?id=0"


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
        Path(output).write_bytes(b"1")
        return output

    stand_in = SimpleNamespace(
        calls=[], error=None, download=download, exceptions=SimpleNamespace(DownloadError=DownloadError)
    )
    monkeypatch.setitem(sys.modules, "gdown", stand_in)
    return stand_in


def test_drive_is_asked_by_gdown(tmp_path: Path, gdown):
    told = []
    download(DRIVE, tmp_path / "b.zip", lambda part: told.append(part.name), lambda *what: told.append(what))
    assert gdown.calls == [(DRIVE, "b.zip.fishr-part", True, True)]
    assert told == [("b.zip", 2, 4), "b.zip.fishr-part"]
    assert (tmp_path / "b.zip").read_bytes() == b"1"
    assert [path.name for path in tmp_path.iterdir()] == ["b.zip"]


@pytest.mark.parametrize("error", ["quota", "connection"])
def test_drives_refusal_is_one_line(tmp_path: Path, gdown, error):
    gdown.error = (
        gdown.exceptions.DownloadError("too many\n\n\taccesses") if error == "quota" else OSError("too many accesses")
    )
    with pytest.raises(RunFailed, match=r"not received \(too many accesses\); try again, or .* --archive FILE"):
        download(DRIVE, tmp_path / "b.zip", print)


def test_without_gdown_both_ways_are_told(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(
        InputError, match=r"run pip install -e '\.\[download\]' in your checkout of fishr, or .* --archive FILE"
    ):
        download(DRIVE, tmp_path / "b.zip", print, print)
    assert list(tmp_path.iterdir()) == []
