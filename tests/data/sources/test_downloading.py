"""Downloads from servers of this machine: with ranges, without, and with connections that break."""

import os
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fishr.data.sources import downloading
from fishr.data.sources.downloading import Reply, download, from_first, open_url, partial_file
from fishr.errors import InputError, RunFailed

CONTENT = bytes(range(256)) * 400


class Server:
    """What it sends, and how; and the ranges it was asked for."""

    def __init__(self):
        self.content = CONTENT
        self.ranges = True
        self.cuts = 0
        self.tag = '"v1"'
        self.honours_if_range = True
        self.length = True
        self.asked: list[str | None] = []
        self.sent = 0
        self.url = ""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    settings = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            settings.asked.append(asked)
            content, start = settings.content, 0
            if self.path == "/absent":
                self.send_error(404)
                return
            fits = not settings.honours_if_range or self.headers.get("If-Range", settings.tag) == settings.tag
            if settings.ranges and asked and fits:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if settings.length:
                self.send_header("Content-Length", str(len(content) - start))
            if settings.tag:
                self.send_header("ETag", settings.tag)
            self.end_headers()
            rest = content[start:]
            if settings.cuts:
                settings.cuts -= 1
                rest = rest[: len(rest) // 2]
            settings.sent += len(rest)
            self.wfile.write(rest)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        settings.url = f"http://127.0.0.1:{listening.server_port}/clipart.zip"
        yield settings
        listening.shutdown()
        thread.join()


def fetched(server: Server, folder: Path, **more) -> bytes:
    path = folder / "clipart.zip"
    download(server.url, path, check=lambda part: None, **more)
    assert [each.name for each in folder.iterdir()] == ["clipart.zip"]
    return path.read_bytes()


def test_a_whole_file_comes_in_one_go(server, tmp_path: Path):
    told = []
    assert fetched(server, tmp_path, progress=lambda *what: told.append(what)) == CONTENT
    assert server.asked == [None]
    assert told[0] == ("clipart.zip", 0, len(CONTENT))
    assert told[-1] == ("clipart.zip", len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("cuts", [1, 3])
def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path: Path, cuts):
    server.cuts = cuts
    assert fetched(server, tmp_path) == CONTENT
    assert len(server.asked) == cuts + 1
    assert server.asked[1] == f"bytes={len(CONTENT) // 2}-"
    assert server.sent == len(CONTENT)


def test_a_second_call_goes_on_with_what_the_first_left(server, tmp_path: Path):
    part = partial_file(tmp_path / "clipart.zip")
    part.write_bytes(CONTENT[:1000])
    part.with_name(f"{part.name}.tag").write_text('"v1"')
    assert fetched(server, tmp_path) == CONTENT
    assert server.asked == ["bytes=1000-"]
    assert server.sent == len(CONTENT) - 1000


def test_a_server_without_ranges_starts_again(server, tmp_path: Path):
    server.ranges = False
    partial_file(tmp_path / "clipart.zip").write_bytes(b"x" * 1000)
    server.cuts = 1
    assert fetched(server, tmp_path) == CONTENT
    assert server.sent == len(CONTENT) + len(CONTENT) // 2


def test_a_server_without_ranges_that_always_breaks_is_given_up(server, tmp_path: Path):
    server.ranges, server.cuts = False, 99
    with pytest.raises(RunFailed, match=rf"ended at byte 51200 of {len(CONTENT)}.*resumes at byte 51200.*--archive"):
        fetched(server, tmp_path)
    assert len(server.asked) == 2
    assert partial_file(tmp_path / "clipart.zip").stat().st_size == len(CONTENT) // 2
    assert not (tmp_path / "clipart.zip").exists()


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_another_version_of_the_file_is_fetched_whole(server, tmp_path: Path, honours_if_range):
    server.honours_if_range = honours_if_range
    server.cuts = 1
    with open_url(server.url) as reply:
        next(reply.chunks)
    part = partial_file(tmp_path / "clipart.zip")
    part.write_bytes(CONTENT[:1000])
    part.with_name(f"{part.name}.tag").write_text(reply.tag)
    server.content, server.tag = CONTENT[::-1], '"v2"'
    server.asked.clear()
    assert fetched(server, tmp_path) == CONTENT[::-1]
    # A server that knows If-Range is asked once.
    assert server.asked == ["bytes=1000-", None][: 1 if honours_if_range else 2]


def test_a_file_that_changes_between_two_connections_is_fetched_whole(server, tmp_path: Path):
    def change(what: str, done: int, total: int | None) -> None:
        server.content, server.tag = CONTENT[::-1], '"v2"'

    server.cuts = 1
    assert fetched(server, tmp_path, progress=change) == CONTENT[::-1]


def test_all_bytes_are_here_already(server, tmp_path: Path):
    partial_file(tmp_path / "clipart.zip").write_bytes(CONTENT)
    assert fetched(server, tmp_path) == CONTENT
    assert server.sent == 0


def test_more_bytes_than_the_file_has_are_dropped(server, tmp_path: Path):
    partial_file(tmp_path / "clipart.zip").write_bytes(CONTENT + b"more")
    assert fetched(server, tmp_path) == CONTENT


def test_a_length_that_is_not_told_is_no_error(server, tmp_path: Path):
    server.length, server.tag = False, ""
    assert fetched(server, tmp_path) == CONTENT


def test_a_missing_file_and_a_dead_server_are_one_line(server, tmp_path: Path):
    with pytest.raises(RunFailed, match=r"/absent: not received \(HTTP Error 404"):
        download(server.url.replace("/clipart.zip", "/absent"), tmp_path / "a", check=print)
    with pytest.raises(RunFailed, match=r"not received \(.*refused.*resumes at byte 0") as caught:
        download("http://127.0.0.1:9/a", tmp_path / "a", check=print)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_range_than_asked_for_is_an_error(tmp_path: Path, monkeypatch):
    class Answer:
        status = 206
        headers = {"Content-Range": "bytes 7-9/10"}  # noqa: RUF012

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer())
    with pytest.raises(OSError, match="another range than bytes 5-"), open_url("http://a", 5):
        pass


@pytest.mark.parametrize(
    ("headers", "tag"),
    [
        ({"ETag": '"a"', "Last-Modified": "Mon"}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": "Mon"}, "Mon"),
        ({}, ""),
    ],
)
def test_only_strong_tags_name_a_version(headers, tag):
    assert downloading._tag(headers) == tag


def test_the_check_comes_before_the_name(server, tmp_path: Path):
    def refuse(part: Path) -> None:
        assert part.read_bytes() == CONTENT
        raise RunFailed("wrong")

    with pytest.raises(RunFailed, match="wrong"):
        download(server.url, tmp_path / "clipart.zip", check=refuse)
    assert not (tmp_path / "clipart.zip").exists()
    assert partial_file(tmp_path / "clipart.zip").exists()


@pytest.mark.slow
def test_a_second_source_serves_where_the_first_does_not(server, tmp_path: Path):
    lines: list[str] = []
    path, absent = tmp_path / "clipart.zip", server.url.replace("clipart.zip", "absent")
    get = partial(download, path=path, check=lambda part: None)
    from_first((absent, server.url), get, lines.append)
    assert path.read_bytes() == CONTENT
    assert [each.name for each in tmp_path.iterdir()] == ["clipart.zip"]
    assert lines[0].startswith(f"{absent}: not received (HTTP Error 404")
    assert lines[0].endswith(f"; now from {server.url}")
    assert lines[1:] == [f"from {server.url}"]
    with pytest.raises(RunFailed, match=r"absent: not received .*; http://127\.0\.0\.1:1/clipart.zip failed too$"):
        from_first((absent, "http://127.0.0.1:1/clipart.zip"), partial(get, path=tmp_path / "b"), lines.append)


@pytest.mark.parametrize("tag", ['"v1"', ""])
def test_bytes_of_two_sources_are_not_mixed(server, tmp_path: Path, tag):
    part = partial_file(tmp_path / "clipart.zip")
    part.write_bytes(b"of another source")
    part.with_name(f"{part.name}.tag").write_text(f"{tag and chr(34) + 'v0' + chr(34)}\nhttp://host/clipart.zip")
    server.tag = tag
    assert fetched(server, tmp_path) == CONTENT


def test_two_processes_do_not_fetch_the_same_file(server, tmp_path: Path):
    def again(part: Path) -> None:
        with pytest.raises(InputError, match="another process is downloading it"):
            download(server.url, tmp_path / "clipart.zip", check=print)

    download(server.url, tmp_path / "clipart.zip", check=again)
    assert (tmp_path / "clipart.zip").read_bytes() == CONTENT


def test_a_file_that_another_process_finished_meanwhile_is_not_touched(tmp_path: Path, monkeypatch):
    path = tmp_path / "a"

    @contextmanager
    def waited_for(path):
        path.write_bytes(b"whole")
        yield

    monkeypatch.setattr(downloading, "sole_downloader", waited_for)
    download("data:text/plain,other", path, check=print)
    assert path.read_bytes() == b"whole"


def test_more_bytes_than_promised_are_not_kept(tmp_path: Path, monkeypatch):
    from contextlib import nullcontext

    def generous(url, start, tag):
        return nullcontext(Reply(iter([b"1234"]), start=0, length=3, tag=""))

    monkeypatch.setattr(downloading, "open_url", generous)
    with pytest.raises(RunFailed, match=r"4 bytes received, expected 3"):
        download("http://a", tmp_path / "a", check=print)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_blamed_on_the_network(tmp_path: Path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloading.os, "fsync", full)
    with pytest.raises(RunFailed, match=r"a.txt: cannot be written .No space left on device"):
        download("data:text/plain,digits", tmp_path / "a.txt", check=print)


@pytest.mark.parametrize(("number", "problem"), [(28, "cannot be written .No space"), (32, "not received .Broken")])
def test_a_disk_that_fails_on_the_way_is_told_from_the_network(server, tmp_path: Path, number, problem):
    def fail(what: str, done: int, total: int | None) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(RunFailed, match=problem):
        download(server.url, tmp_path / "a", check=print, progress=fail)


def test_an_interruption_keeps_what_came(tmp_path: Path, monkeypatch):
    from contextlib import nullcontext

    def interrupted():
        yield b"1234"
        raise KeyboardInterrupt

    monkeypatch.setattr(downloading, "open_url", lambda *_: nullcontext(Reply(interrupted(), 0, 9, "x")))
    with pytest.raises(KeyboardInterrupt):
        download("http://a", tmp_path / "a", check=print)
    assert partial_file(tmp_path / "a").read_bytes() == b"1234"
