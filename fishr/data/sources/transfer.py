"""Fetching large files over HTTP: what was received is kept, and the next attempt goes on from there."""

import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from attrs import frozen

from fishr.errors import RunFailed
from fishr.files import present, sync_folder, write_atomically
from fishr.locks import beside, locked, open_own

CHUNK = 1 << 20
SECONDS = 60


@frozen
class Reply:
    """What a server answers.

    Args:
        chunks: the bytes.
        start: position of their first one in the file; 0 where the server begins again.
        length: of the whole file; None: the server does not say.
        tag: names this version of the file; empty: the server has no name for it.

    Example:
        >>> b"".join(Reply(iter([b"di", b"gits"]), start=0, length=6, tag="").chunks)
        b'digits'
    """

    chunks: Iterator[bytes]
    start: int
    length: int | None
    tag: str


Open = Callable[[str, int, str], AbstractContextManager[Reply]]
"""From (address, first byte wanted, tag of the version wanted) to an open reply."""
Progress = Callable[[str, int, int | None], object]
"""Is told what is being worked on, how much of it is done, and of how much (None: not known)."""


@contextmanager
def open_url(url: str, start: int = 0, tag: str = "") -> Generator[Reply]:
    """Ask a server for a file from some byte on.

    Args:
        url: address that ``urllib`` opens.
        start: position of the first byte wanted.
        tag: of the version whose first bytes are here already; of another version the server sends all.

    Returns:
        The reply, open while the context lasts.

    Raises:
        OSError: no connection, no answer within a minute, no such file, or another range than asked for.

    Example:
        >>> with open_url("data:text/plain,digits") as reply:
        ...     b"".join(reply.chunks)
        b'digits'

    Source:
        RFC 9110, sections 13.1.5 (If-Range) and 14 (ranges).
    """
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    wanted = {"Range": f"bytes={start}-"} | ({"If-Range": tag} if tag else {}) if start else {}
    with ExitStack() as stack:
        try:
            answer = stack.enter_context(urlopen(Request(url, headers=wanted), timeout=SECONDS))
        except HTTPError as error:
            stack.enter_context(error)
            if error.code != 416 or not start:
                raise
            # No byte from there on: either all of the file is here, or what is here is of another file.
            if error.headers.get("Content-Range") == f"bytes */{start}":
                yield Reply(iter(()), start, start, tag)
                return
            yield stack.enter_context(open_url(url))
            return
        found = _tag(answer.headers)
        range_ = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range") or "")
        partial = getattr(answer, "status", None) == 206
        if partial and (range_ is None or int(range_[1]) != start):
            raise OSError(f"the server sent another range than bytes {start}-")
        if partial and tag and found not in ("", tag):
            # It does not know If-Range, and the file has changed.
            yield stack.enter_context(open_url(url))
            return
        length = range_[2] if partial and range_ else answer.headers.get("Content-Length") or "*"
        yield Reply(_chunks(answer), start if partial else 0, None if length == "*" else int(length), found)


def download(
    url: str,
    path: Path,
    check: Callable[[Path], object],
    open_reply: Open = open_url,
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Fetch a file by way of ``path.fishr-part``, which the next call goes on with if this one does not end.

    A connection that breaks is opened again as long as each attempt brings bytes. The file gets its name when it is
    whole and checked.

    Args:
        url: where from.
        path: where to; its folder exists.
        check: looks at the whole file before it gets its name, and raises what is wrong with it.
        open_reply: opens addresses.
        progress: is told the bytes.

    Raises:
        InputError: another process is fetching it.
        RunFailed: the network or the disk fails.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     download("data:text/plain,digits", Path(folder, "a.txt"), check=lambda part: None)
        ...     [(path.name, path.read_text()) for path in Path(folder).iterdir()]
        [('a.txt', 'digits')]
    """
    part = partial_file(path)
    memo = part.with_name(f"{part.name}.tag")
    try:
        with sole_fetcher(path):
            if present(path):  # Another process has fetched it meanwhile.
                return
            try:
                with os.fdopen(open_own(part, os.O_RDWR | os.O_CREAT | os.O_APPEND), "ab") as file:
                    _receive_all(url, file, memo, open_reply, progress)
                check(part)
                part.replace(path)
                sync_folder(path.parent)
            finally:
                if part.exists() and not part.stat().st_size:
                    part.unlink()
                if not part.exists():
                    memo.unlink(missing_ok=True)
    except OSError as error:
        raise RunFailed(
            f"{path}: cannot be written ({error.strerror or error}); free some space or mend the folder"
        ) from None


def partial_file(path: Path) -> Path:
    """Where the bytes of a file are kept until it is whole.

    Example:
        >>> partial_file(Path("clipart.zip")).name
        'clipart.zip.fishr-part'
    """
    return path.with_name(f"{path.name}.fishr-part")


def sole_fetcher(path: Path) -> AbstractContextManager[None]:
    """Keep other processes from fetching the same file while the context lasts."""
    return locked(beside(path), path, "another process is fetching it; wait for it to end")


def _receive_all(url: str, file: BinaryIO, memo: Path, open_reply: Open, progress: Progress) -> None:
    """Connect anew as long as that brings bytes."""
    best = file.tell()
    while reason := _receive(url, file, memo, open_reply, progress):
        if file.tell() <= best:
            raise RunFailed(
                f"{url}: not received ({reason}); the same command goes on from byte {file.tell()}, "
                "or get the file otherwise and give it with --archive FILE"
            )
        best = file.tell()


def _receive(url: str, file: BinaryIO, memo: Path, open_reply: Open, progress: Progress) -> str:
    """Add to the file what one connection brings; why it is not whole yet, or nothing."""
    tag = memo.read_text() if file.tell() and memo.exists() else ""
    name = memo.name.removesuffix(".fishr-part.tag")
    try:
        with ExitStack() as stack:
            with _network():
                reply = stack.enter_context(open_reply(url, file.tell(), tag))
            if reply.start != file.tell():
                file.truncate(reply.start)
                file.seek(reply.start)
            write_atomically(memo, reply.tag.encode())
            progress(name, file.tell(), reply.length)
            while chunk := _next(reply.chunks):
                file.write(chunk)
                progress(name, file.tell(), reply.length)
    except _NetworkError as error:
        return str(error)
    finally:
        file.flush()
        os.fsync(file.fileno())
    if reply.length is not None and file.tell() > reply.length:
        got = file.tell()
        file.truncate(0)
        file.seek(0)
        return f"{got} bytes came, expected {reply.length}"
    if reply.length is not None and file.tell() < reply.length:
        return f"the connection ended at byte {file.tell()} of {reply.length}"
    return ""


class _NetworkError(Exception):
    """The network failed, not the disk."""


@contextmanager
def _network() -> Generator[None]:
    try:
        yield
    except (OSError, HTTPException) as error:
        raise _NetworkError(" ".join(str(error).split()) or type(error).__name__) from None


def _next(chunks: Iterator[bytes]) -> bytes:
    with _network():
        return next(chunks, b"")


def _chunks(answer: BinaryIO) -> Iterator[bytes]:
    while chunk := answer.read(CHUNK):
        yield chunk


def _tag(headers: Message) -> str:
    """The strong entity tag, else the date: what If-Range takes."""
    tag = headers.get("ETag") or ""
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified") or ""
