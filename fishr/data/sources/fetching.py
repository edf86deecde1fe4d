"""The archives of a data set: fetched once, told apart from web pages, and compared with what came before."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fishr.data.sources.archives import is_archive
from fishr.data.sources.drive import download_from_drive
from fishr.data.sources.image_set import Archive
from fishr.data.sources.sums import check_and_record, read_sums
from fishr.data.sources.transfer import Progress, download
from fishr.errors import InputError, RunFailed

FOLDER = "archives"
Fetch = Callable[[Archive, Path, Callable[[Path], object], Progress], None]
"""From (archive, path, check of the whole file, progress) to the file at that path."""


def fetch(archive: Archive, path: Path, check: Callable[[Path], object], progress: Progress) -> None:
    """Fetch an archive from where it is published.

    Args:
        archive: which.
        path: where to; its folder exists.
        check: looks at the whole file before it gets its name.
        progress: is told the bytes.

    Raises:
        InputError: another process is fetching it, or Google Drive's client is not installed.
        RunFailed: it did not come, or is not what was expected.

    Example:
        >>> fetch(Archive("a.zip", "file:///no-such-file"), Path("no-such-folder/a.zip"), print, print)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: no-such-folder/a.zip: cannot be written there (No such file or directory); ...
    """
    if archive.on_drive:
        download_from_drive(archive.address, path, check, progress)
    else:
        download(archive.address, path, check, progress=progress)


def obtain(
    archives: tuple[Archive, ...],
    data_dir: Path,
    fetch: Fetch = fetch,
    progress: Progress = lambda what, done, total: None,
) -> tuple[tuple[Path, str], ...]:
    """Have archives in ``data_dir/archives``, each with the SHA-256 sum that SHA256SUMS there records.

    An archive that is there already is kept, but for its sum not fetched again.

    Args:
        archives: which.
        data_dir: the data folder; made when absent.
        fetch: gets one.
        progress: is told the bytes.

    Returns:
        Path and sum of each.

    Raises:
        InputError: the folder cannot be used, or ``fetch`` refuses.
        RunFailed: ``fetch`` fails, a web page came in place of an archive, or a sum differs from the recorded one.

    Example:
        >>> obtain((), Path("."))
        ()
    """
    if not archives:
        return ()
    folder = data_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be used ({error.strerror or error}); give a folder you can write to"
        ) from None
    found = list[tuple[Path, str]]()
    for archive in archives:
        path = folder / archive.name
        if path.exists():
            check_and_record(path, archive.name)
        else:
            fetch(archive, path, partial(_check, archive=archive), progress)
        found.append((path, read_sums(folder)[archive.name]))
    return tuple(found)


def _check(part: Path, archive: Archive) -> None:
    """Compare the sum of a file that came; one that is no archive is removed, so that the next attempt begins anew."""
    if not is_archive(part):
        with part.open("rb") as file:
            page = file.read(1024).lstrip().lower().startswith((b"<!doctype html", b"<html"))
        part.unlink()
        what = "a web page, as of a quota that is used up or a login" if page else "neither a zip nor a tar archive"
        raise RunFailed(
            f"{archive.address}: what came is {what}; try again later, or fetch {archive.name} with a browser and give "
            "it with --archive FILE"
        )
    check_and_record(part, archive.name)
