"""Resumable downloads over HTTP and from Google Drive."""

import os
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from fishr.errors import RunFailed, reason
from fishr.extras import from_extra
from fishr.files import present, sync_folder, write_atomically
from fishr.locks import beside, locked, open_own
from fishr.paths import is_device_failure

CHUNK = 1 << 20
SECONDS = 60
DRIVE = "https://drive.google.com/"
OTHERWISE = "download it with a browser and give it with --archive FILE"


@frozen
class Reply:
    """A server's answer: the bytes from ``start`` on of a file of ``length`` bytes (None: unknown), version ``tag``."""

    chunks: Iterator[bytes]
    start: int
    length: int | None
    tag: str


Progress = Callable[[str, int, int | None], object]
"""Called with what is in progress, how much of it is done, and the total (None: unknown)."""


def from_first(
    sources: Sequence[str], get: Callable[[str], object], report: Callable[[str], object] = lambda line: None
) -> None:
    """Call ``get`` with each address until one serves; report it and those that failed, or raise the first failure."""
    failures = list[RunFailed]()
    for number, source in enumerate(sources, start=1):
        try:
            get(source)
        except RunFailed as error:
            failures.append(error)
            if number < len(sources):
                report(f"{error}; now from {sources[number]}")
        else:
            report(f"from {source}")
            return
    others = "".join(f"; {source} failed too" for source in sources[1:])
    raise RunFailed(f"{failures[0]}{others}") from failures[-1]


def download(
    url: str,
    path: Path,
    check: Callable[[Path], object],
    progress: Progress = lambda what, done, total: None,
    otherwise: str = OTHERWISE,
) -> None:
    """Resume or begin a download to ``path.fishr-part``; rename it once ``check``, given that file, does not raise."""
    part = partial_file(path)
    try:
        with sole_downloader(path):
            if present(path):  # Another process has downloaded it meanwhile.
                return
            try:
                if url.startswith(DRIVE):
                    _receive_from_drive(url, part, lambda done, total: progress(path.name, done, total), otherwise)
                else:
                    _receive_over_http(url, part, progress, otherwise)
                check(part)
                part.replace(path)
                sync_folder(path.parent)
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()
                if not part.exists():
                    _tag_file(part).unlink(missing_ok=True)
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written ({reason(error)}); free some space or fix permissions") from None


def partial_file(path: Path) -> Path:
    """Return the path of the bytes of a file until it is whole."""
    return path.with_name(f"{path.name}.fishr-part")


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def sole_downloader(path: Path) -> AbstractContextManager[None]:
    """Keep other processes from downloading the same file while the context lasts."""
    return locked(beside(path), path, "another process is downloading it; wait for it to end")


def _receive_from_drive(url: str, part: Path, progress: Callable[[int, int | None], object], otherwise: str) -> None:
    """Download with gdown, which answers Drive's questions before large files and resumes."""
    gdown = from_extra("download", "gdown", url, f", or {otherwise}")
    try:
        gdown.download(url=url, output=str(part), quiet=True, resume=True, progress=progress, timeout=SECONDS)
    except (gdown.exceptions.DownloadError, OSError) as error:
        raise RunFailed(f"{url}: not received ({reason(error)}); try again, or {otherwise}") from None


def _receive_over_http(url: str, part: Path, progress: Progress, otherwise: str) -> None:
    """Connect anew as long as that brings bytes."""
    with os.fdopen(open_own(part, os.O_RDWR | os.O_CREAT | os.O_APPEND), "ab") as file:
        best = file.tell()
        while problem := _receive(url, file, part, progress):
            if file.tell() <= best:
                raise RunFailed(
                    f"{url}: not received ({problem}); the same command resumes at byte {file.tell()}, or {otherwise}"
                )
            best = file.tell()


def _receive(url: str, file: BinaryIO, part: Path, progress: Progress) -> str:
    """Append the bytes of one connection; return why the file is not whole yet, or nothing."""
    memo, name = _tag_file(part), part.name.removesuffix(".fishr-part")
    tag, _, source = (memo.read_text() if file.tell() and memo.exists() else "").partition("\n")
    if source not in ("", url) and not tag:  # Bytes of another source, whose version is not known.
        file.truncate(0)
        file.seek(0)
    try:
        with open_url(url, file.tell(), tag) as reply:
            if reply.start != file.tell():
                file.truncate(reply.start)
                file.seek(reply.start)
            write_atomically(memo, f"{reply.tag}\n{url}".encode())
            progress(name, file.tell(), reply.length)
            for chunk in reply.chunks:
                file.write(chunk)
                progress(name, file.tell(), reply.length)
    except (OSError, HTTPException) as error:
        if isinstance(error, OSError) and is_device_failure(error):
            raise
        return reason(error)
    finally:
        file.flush()
        os.fsync(file.fileno())
    if reply.length is not None and file.tell() > reply.length:
        got = file.tell()
        file.truncate(0)
        file.seek(0)
        return f"{got} bytes received, expected {reply.length}"
    if reply.length is not None and file.tell() < reply.length:
        return f"the connection ended at byte {file.tell()} of {reply.length}"
    return ""


@contextmanager
def open_url(url: str, start: int = 0, tag: str = "") -> Generator[Reply]:
    """Request a file from some byte on, in the version ``tag``; of another version the server sends all (RFC 9110)."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    headers = {"Range": f"bytes={start}-"} | ({"If-Range": tag} if tag else {}) if start else {}
    with ExitStack() as stack:
        try:
            answer = stack.enter_context(urlopen(Request(url, headers=headers), timeout=SECONDS))
        except HTTPError as error:
            answer = stack.enter_context(error)
            if error.code != 416 or not start:
                raise
        status, found = getattr(answer, "status", None), _tag(answer.headers)
        sent = answer.headers.get("Content-Range") or ""
        range_ = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", sent)
        partial = status == 206
        if status == 416 and sent == f"bytes */{start}":  # No byte from there on: the file is complete.
            yield Reply(iter(()), start, start, tag)
            return
        if partial and (range_ is None or int(range_[1]) != start):
            raise OSError(f"the server sent another range than bytes {start}-")
        if status == 416 or (partial and tag and found not in ("", tag)):
            # Its beginning is of another file; or the server does not know If-Range, and the file has changed.
            yield stack.enter_context(open_url(url))
            return
        length = range_[2] if partial and range_ else answer.headers.get("Content-Length") or "*"
        chunks = iter(lambda: answer.read(CHUNK), b"")
        yield Reply(chunks, start if partial else 0, None if length == "*" else int(length), found)


def _tag(headers: Message) -> str:
    """Return the strong entity tag, else the date: what If-Range takes."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""
