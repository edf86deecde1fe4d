"""Fetching a file from Google Drive, by way of gdown, which knows what Drive asks before it sends a large file."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from fishr.data.sources.transfer import Progress, partial_file, sole_fetcher
from fishr.errors import InputError, RunFailed
from fishr.files import present, sync_folder


def download_from_drive(
    url: str,
    path: Path,
    check: Callable[[Path], object],
    progress: Progress = lambda what, done, total: None,
) -> None:
    """Fetch a file that Google Drive has; gdown keeps what came before a failure and goes on from there.

    Args:
        url: its address.
        path: where to; its folder exists.
        check: looks at the whole file before it gets its name, and raises what is wrong with it.
        progress: is told the bytes.

    Raises:
        InputError: gdown is not installed.
        RunFailed: Drive does not send the file.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.dict("sys.modules", gdown=None):
        ...     download_from_drive("https://drive.google.com/uc?id=0", Path("PACS.zip"), check=print)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: https://drive.google.com/uc?id=0: Google Drive needs gdown, which is not ...

    Source:
        https://github.com/wkentaro/gdown
    """
    otherwise = "fetch it with a browser and give it with --archive FILE"
    try:
        gdown = import_module("gdown")
    except ImportError:
        raise InputError(
            f"{url}: Google Drive needs gdown, which is not installed; run pip install -e '.[download]' in your "
            f"checkout of fishr, or {otherwise}"
        ) from None
    part = partial_file(path)

    def tell(done: int, total: int | None) -> None:
        progress(path.name, done, total)

    with sole_fetcher(path):
        if present(path):  # Another process has fetched it meanwhile.
            return
        try:
            gdown.download(url=url, output=str(part), quiet=True, resume=True, progress=tell, timeout=60)
        except (gdown.exceptions.DownloadError, OSError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise RunFailed(f"{url}: not received ({reason}); try again, or {otherwise}") from None
        check(part)
        part.replace(path)
        sync_folder(path.parent)
