"""Data sets of a hub, which is a server of this machine."""

import hashlib
import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
from tqdm import tqdm

from fishr.data.sources.hub_tables import download_table
from fishr.errors import InputError, RunFailed

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"README.md": b"# Animals\n", "data/train-00000-of-00001.parquet": bytes(range(256)) * 9}


class Hub(BaseHTTPRequestHandler):
    """Answers what ``snapshot_download`` asks for zoo/animals; ``broken`` names a file that it fails to send."""

    broken = ""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/zoo/animals/revision/") or path == "/api/datasets/zoo/animals":
            siblings = [{"rfilename": name} for name in FILES]
            self.answer(json.dumps({"id": "zoo/animals", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/api/datasets/zoo/animals/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES.items()
            ]
            self.answer(json.dumps(entries).encode())
        elif (name := path.removeprefix(f"/datasets/zoo/animals/resolve/{COMMIT}/")) in FILES and name != self.broken:
            self.answer(FILES[name])
        else:
            self.answer(b"{}", 404, [("X-Error-Code", "RepoNotFound")])

    def answer(self, content: bytes, status: int = 200, more: list[tuple[str, str]] | None = None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        for name, value in more or ():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{listening.server_port}"
        get = partial(huggingface_hub.snapshot_download, endpoint=address, cache_dir=tmp_path / "hub", max_workers=1)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", get)
        monkeypatch.setattr(Hub, "broken", "")
        yield Hub
        listening.shutdown()
        thread.join()


def test_a_data_set_comes_whole_and_is_kept(hub, tmp_path: Path, monkeypatch):
    folder, new = download_table("zoo/animals", tmp_path / "data")
    assert (folder, new) == (tmp_path / "data" / "huggingface" / "zoo" / "animals", True)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["animals"]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked again"))
    assert download_table("zoo/animals", tmp_path / "data") == (folder, False)


def test_a_failed_download_leaves_no_data_set_and_resumes(hub, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(hub, "broken", "data/train-00000-of-00001.parquet")
    with pytest.raises(RunFailed, match=r"hf:zoo/animals: not received .*; the same command resumes") as caught:
        download_table("zoo/animals", tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "huggingface" / "zoo" / "animals").exists()
    monkeypatch.setattr(hub, "broken", "")
    assert download_table("zoo/animals", tmp_path)[1]


def test_the_bars_of_the_client_are_those_that_are_given(hub, tmp_path: Path):
    made = list[Any]()

    class Bars(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": False, "file": StringIO()})
            made.append(self)

    download_table("zoo/animals", tmp_path, Bars)
    # Of files; newer clients count bytes as well.
    assert any((bar.n, bar.total) == (len(FILES), len(FILES)) for bar in made)


@pytest.mark.parametrize("name", ["animals", "zoo/", "../animals", "zoo/../x", "https://host/zoo/animals", ""])
def test_names_that_the_hub_does_not_have(tmp_path: Path, name):
    with pytest.raises(InputError, match="no name of a hub data set, expected hf:OWNER/NAME"):
        download_table(name, tmp_path)


def test_a_data_set_that_does_not_exist(hub, tmp_path: Path):
    with pytest.raises(RunFailed, match=r"hf:zoo/none: not received \(.*\); check the name and the network"):
        download_table("zoo/none", tmp_path)
