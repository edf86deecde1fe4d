"""Install an image data set: download its archives, unpack and lay them out, then rename the folder in one step."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from attrs import frozen

from fishr.data.images.folder_listing import list_folder
from fishr.data.sources.archives import check_space, is_archive, unpack
from fishr.data.sources.downloading import OTHERWISE, Progress, download, from_first
from fishr.data.sources.image_sets import ImageSet
from fishr.data.sources.layouts import is_arranged
from fishr.data.sources.verifying import check_contents, contents_of, notes_of
from fishr.errors import InputError, RunFailed, reason
from fishr.files import digest_of, partial_folder, present, put_folder, write_atomically
from fishr.locks import beside, locked
from fishr.paths import check_writable

FOLDER = "archives"
SUMS = "SHA256SUMS"  # in the form that ``sha256sum --check`` reads
Fetch = Callable[[str, Path, Callable[[Path], object], Progress], None]
"""From (address, path, check of the whole file, progress) to the file at that path."""


Report = Callable[[str], object]
"""Called with one line on the source of a file."""


@frozen
class Installed:
    """An installed data set.

    Args:
        sums: Path and SHA-256 sum of each archive; empty if the data set existed already.
        notes: Notes on how it was arranged.
    """

    folder: Path
    sums: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()


def install(
    image_set: ImageSet,
    data_dir: Path,
    archives: Sequence[Path] = (),
    left_out: Path | None = None,
    fetch: Fetch = download,
    progress: Progress = lambda what, done, total: None,
    report: Report = lambda line: None,
) -> Installed:
    """Download, unpack and lay out a data set; an existing folder is never changed.

    Args:
        data_dir: Data folder; created if absent.
        left_out: File of paths ENVIRONMENT/CLASS/IMAGE, one a line, to leave out, such as duplicates.
        fetch: Downloads an archive.
        progress: Called with what is in progress, bytes done, and bytes in all (None: unknown).
        report: Called with the address that an archive came from, and with each that failed before it.

    Returns:
        The folder; without sums if it existed already.

    Raises:
        InputError: Something else is in its place, an archive is refused or holds something else, there is nothing to
            download, or another process is installing it.
        RunFailed: The network or the disk fails; what was downloaded is kept.
    """
    folder = data_dir / image_set.folder
    if present(folder):
        if archives or left_out or not is_arranged(folder, image_set.environments):
            raise InputError(f"{folder}: exists already and is kept; move it away or choose another --data-dir")
        return Installed(folder)
    if not archives and not image_set.archives:
        raise InputError(
            f"{image_set.name}: it cannot be downloaded from here; get it from {image_set.origin}, lay it out as "
            f"{data_dir}/{image_set.layout}, or give an archive of that layout with --archive FILE"
        )
    unwanted = () if left_out is None else read_left_out(left_out)
    check_writable(folder)
    sums = () if archives else _obtained(image_set, data_dir, fetch, progress, report)
    chosen = archives or [path for path, _ in sums]
    existing = next(place for place in (data_dir, *data_dir.absolute().parents) if place.exists())
    total = check_space(chosen, existing)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        busy = "another process is unpacking it; wait for it to end"
        with locked(beside(folder), folder, busy), partial_folder(folder) as work:
            _unpack(chosen, work / "unpacked", progress, total)
            notes = _arrange(image_set, work / "unpacked", work / "arranged", ", ".join(map(str, chosen)))
            if left_out is not None:
                notes += (_leave_out(work / "arranged", unwanted, left_out),)
            put_folder(work / "arranged", folder)
    except OSError as error:
        raise RunFailed(f"{folder}: cannot be written ({reason(error)}); free some space or fix permissions") from None
    return Installed(folder, sums or tuple((path, digest_of(path)) for path in archives), notes)


def _obtained(
    image_set: ImageSet, data_dir: Path, fetch: Fetch, progress: Progress, report: Report
) -> tuple[tuple[Path, str], ...]:
    sources = {
        name: tuple(filter(None, (address, image_set.mirrors.get(name))))
        for name, address in image_set.archives.items()
    }
    try:
        return obtain(sources, data_dir, fetch, progress, report)
    except RunFailed as error:
        table = f"; or take its images in a table, fishr data download hf:{image_set.table}" if image_set.table else ""
        raise RunFailed(f"{error}{table}") from error


def obtain(
    archives: Mapping[str, Sequence[str]],
    data_dir: Path,
    fetch: Fetch = download,
    progress: Progress = lambda what, done, total: None,
    report: Report = lambda line: None,
) -> tuple[tuple[Path, str], ...]:
    """Download archives that ``data_dir/archives`` lacks, by names, from the first of their sources that serves."""
    folder = data_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be used ({reason(error)}); give a folder you can write to") from None
    found = list[tuple[Path, str]]()
    for name, sources in archives.items():
        path = folder / name
        if path.exists():
            check_and_record(path, name)
        else:
            get = partial(_fetched, path=path, fetch=fetch, progress=progress)
            from_first(sources, get, partial(_named, name, report))
        found.append((path, read_sums(folder)[name]))
    return tuple(found)


def _fetched(address: str, path: Path, fetch: Fetch, progress: Progress) -> None:
    fetch(address, path, partial(_check, name=path.name, address=address), progress)


def _named(name: str, report: Report, line: str) -> None:
    report(f"{name}: {line}")


def _check(part: Path, name: str, address: str) -> None:
    """Compare the sum of a downloaded file; one that is no archive is removed, so that the next attempt begins anew."""
    if not is_archive(part):
        with part.open("rb") as file:
            page = file.read(1024).lstrip().lower().startswith((b"<!doctype html", b"<html"))
        part.unlink()
        what = "a web page, as of a quota that is used up or a login" if page else "neither a zip nor a tar archive"
        raise RunFailed(f"{address}: the downloaded file is {what}; try again later, or {OTHERWISE}")
    check_and_record(part, name)


def read_sums(folder: Path) -> dict[str, str]:
    """Return the sums in a folder's SHA256SUMS by file name, none if there is no such file."""
    path = folder / SUMS
    if not path.exists():
        return {}
    found = dict[str, str]()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        parts = re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)
        if parts is None:
            raise InputError(f"{path}: line {number} is not a SHA-256 sum and a file name; fix or remove it")
        found[parts[2]] = parts[1]
    return found


def check_and_record(file: Path, name: str) -> str:
    """Compare a file's sum with the one recorded for a name, record it if it is the first, and return it."""
    got = digest_of(file)
    where = file.parent / SUMS
    with locked(beside(where), where, "another process is writing it; try again"):
        recorded = read_sums(file.parent)
        expected = recorded.get(name, got)
        if name not in recorded:
            lines = [f"{digest}  {each}\n" for each, digest in sorted({**recorded, name: got}.items())]
            write_atomically(where, "".join(lines).encode())
    if got != expected:
        raise RunFailed(
            f"{file}: its SHA-256 is {got}, expected {expected} as {where} records; remove the file to download it "
            "again, or the line to accept it"
        )
    return got


def read_left_out(path: Path) -> tuple[PurePosixPath, ...]:
    """Return the paths ENVIRONMENT/CLASS/IMAGE that a text file lists, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path}: this is not UTF-8 text; expected one path a line") from None
    found = list[PurePosixPath]()
    for number, line in enumerate(lines, 1):
        place = PurePosixPath(line.strip())
        if not place.parts:
            continue
        if len(place.parts) != 3 or place.is_absolute() or ".." in place.parts:
            raise InputError(f"{path}: line {number} is {line.strip()!r}, expected ENVIRONMENT/CLASS/IMAGE")
        found.append(place)
    return tuple(dict.fromkeys(found))


def _unpack(archives: Sequence[Path], folder: Path, progress: Progress, total: int) -> None:
    done = 0
    for number, archive in enumerate(archives):
        place = folder / str(number)
        place.mkdir(parents=True)
        for size in unpack(archive, place):
            done += size
            progress("unpacking", done, total)


def _arrange(image_set: ImageSet, unpacked: Path, arranged: Path, listed: str) -> tuple[str, ...]:
    """Lay out what was unpacked, and return notes; what is not the data set is refused."""
    arranged.mkdir()
    try:
        notes = image_set.relay(unpacked, arranged, image_set.environments)
        contents = contents_of(list_folder(arranged))
    except InputError as error:
        raise InputError(f"{listed}: {str(error).replace(str(arranged), 'its content')}") from None
    check_contents(contents, image_set, listed)
    return (*notes, *notes_of(contents))


def _leave_out(arranged: Path, unwanted: Sequence[PurePosixPath], source: Path) -> str:
    existing = [arranged / place for place in unwanted if (arranged / place).is_file()]
    if not existing:
        raise InputError(f"{source}: none of its {len(unwanted)} paths exists; expected ENVIRONMENT/CLASS/IMAGE")
    for path in existing:
        path.unlink()
    rest = "" if len(existing) == len(unwanted) else ", the others do not exist"
    return f"{len(existing)} of the {len(unwanted)} images in {source} were left out{rest}"
