"""``data list`` and ``data download``, without a network."""

import json

import pytest

from fishr.data.download import MD5


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Opening any address fails as it does on a plane."""

    def refuse(*arguments, **settings):
        raise OSError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def test_list(call, home):
    said = call("data", "list")
    assert (said.code, said.err) == (0, "")
    rows = {line.split()[0]: line.split()[-1] for line in said.out.splitlines()[2:]}
    assert rows == {"ColoredDigits": "yes", "ColoredMNIST": "no", "Arrays": "yes", "CachedFeatures": "yes"}
    assert list(home.iterdir()) == []


def test_list_as_json_sees_mnist(call, home):
    raw = home / "my data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"):
        (raw / name).touch()
    entries = json.loads(call("data", "list", "--data-dir", "my data", "--format", "json").out)
    assert {entry["kind"]: entry["ready"] for entry in entries}["ColoredMNIST"] is True
    assert entries[1].keys() == {"kind", "description", "needs", "ready"}


def test_a_download_without_network_is_one_line(call, home):
    said = call("data", "download", "mnist")
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert said.err.startswith("Error: https://")
    assert "not received (Name or service not known); try again, or copy torchvision's MNIST/raw folder" in said.err
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_other_bytes_than_expected(call, home, monkeypatch):
    from io import BytesIO

    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: BytesIO(b"<html>log in</html>"))
    said = call("data", "download", "mnist", "--data-dir", "d")
    assert said.code == 1
    assert "what came has MD5" in said.err
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_a_download_prints_its_files(call, home, monkeypatch):
    """What is there and right is kept, and the network is not asked for it."""
    from hashlib import md5

    content = {name: name.encode() for name in MD5}
    sums = {name: md5(data, usedforsecurity=False).hexdigest() for name, data in content.items()}
    monkeypatch.setattr("fishr.data.download.MD5", sums)
    raw = home / "d" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MD5:
        (raw / name).write_bytes(content[name])
    said = call("data", "download", "mnist", "--data-dir", "d")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [f"d/MNIST/raw/{name}" for name in MD5]


def test_a_wrong_file_of_that_name_stays(call, home, snapshot):
    raw = home / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / next(iter(MD5))).write_bytes(b"mine")
    before = snapshot(home)
    said = call("data", "download", "mnist")
    assert said.code == 2
    assert "move it away and try again" in said.err
    assert snapshot(home) == before
