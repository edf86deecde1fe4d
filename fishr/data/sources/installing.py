"""Putting a data set of images in its place: unpacked and laid out beside it, then renamed in one step."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from attrs import frozen

from fishr.data.images.folders import list_folder
from fishr.data.sources.archives import check_space, unpack
from fishr.data.sources.fetching import Fetch, fetch, obtain
from fishr.data.sources.image_set import ImageSet
from fishr.data.sources.inspection import contents_of, is_laid, notes_of, problems_of
from fishr.data.sources.transfer import Progress
from fishr.errors import InputError, RunFailed
from fishr.files import digest_of, partial_folder, present, put_folder
from fishr.locks import beside, locked
from fishr.paths import check_writable


@frozen
class Installed:
    """A data set in its place.

    Args:
        folder: of the data set.
        sums: path and SHA-256 sum of each archive; empty where the data set was there already.
        notes: what is worth knowing of how it was laid out.

    Example:
        >>> Installed(Path("data/PACS")).folder.name
        'PACS'
    """

    folder: Path
    sums: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()


def install(
    image_set: ImageSet,
    data_dir: Path,
    archives: Sequence[Path] = (),
    left_out: Path | None = None,
    fetch: Fetch = fetch,
    progress: Progress = lambda what, done, total: None,
) -> Installed:
    """Fetch, unpack and lay out a data set; a folder that is there is never touched.

    Args:
        image_set: which.
        data_dir: the data folder; made when absent.
        archives: of one's own, in place of the published ones.
        left_out: a file of paths ENVIRONMENT/CLASS/IMAGE, one a line, that are not taken, such as duplicates.
        fetch: gets an archive.
        progress: is told the bytes.

    Returns:
        Where it lies; without sums if it was there already.

    Raises:
        InputError: something else is in its place, an archive is refused or holds something else, there is nothing
            to fetch, or another process is at it.
        RunFailed: the network or the disk fails; what was fetched is kept.

    Example:
        >>> from fishr.data.sources import find_image_set
        >>> install(find_image_set("SVIRO"), Path("no-such-folder"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: SVIRO: it cannot be fetched from here; get it from https://sviro.kl.dfki.de, ...
    """
    folder = data_dir / image_set.folder
    if present(folder):
        if archives or left_out or not is_laid(folder, image_set.environments):
            raise InputError(
                f"{folder}: exists already, and is left as it is; move it away or choose another --data-dir"
            )
        return Installed(folder)
    if not archives and not image_set.archives:
        raise InputError(
            f"{image_set.name}: it cannot be fetched from here; get it from {image_set.origin}, lay it out as "
            f"{data_dir}/{image_set.layout}, or give an archive laid out so with --archive FILE"
        )
    unwanted = () if left_out is None else read_left_out(left_out)
    check_writable(folder)
    sums = () if archives else obtain(image_set.archives, data_dir, fetch, progress)
    chosen = archives or [path for path, _ in sums]
    total = check_space(chosen, _existing(data_dir))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        busy = "another process is unpacking it; wait for it to end"
        with locked(beside(folder), folder, busy), partial_folder(folder) as work:
            _unpack(chosen, work / "unpacked", progress, total)
            notes = _lay(image_set, work / "unpacked", work / "laid", ", ".join(map(str, chosen)))
            notes += _leave_out(work / "laid", unwanted, left_out)
            put_folder(work / "laid", folder)
    except OSError as error:
        raise RunFailed(
            f"{folder}: cannot be written ({error.strerror or error}); free some space or mend the folder"
        ) from None
    return Installed(folder, sums or tuple((path, digest_of(path)) for path in archives), notes)


def read_left_out(path: Path) -> tuple[PurePosixPath, ...]:
    """The paths of a list of images to leave out.

    Args:
        path: of a text file, one path ENVIRONMENT/CLASS/IMAGE a line.

    Raises:
        InputError: the file is not UTF-8 text, or a line is no such path.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "list.txt").write_text("clipart/bee/clipart_030_000001.jpg")
        ...     read_left_out(Path(folder, "list.txt"))
        34
        (PurePosixPath('clipart/bee/clipart_030_000001.jpg'),)
    """
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


def _lay(image_set: ImageSet, unpacked: Path, laid: Path, listed: str) -> tuple[str, ...]:
    """Lay out what was unpacked; refuse what is not the data set."""
    laid.mkdir()
    try:
        notes = image_set.relay(unpacked, laid, image_set.environments)
        contents = contents_of(list_folder(laid))
    except InputError as error:
        raise InputError(f"{listed}: {str(error).replace(str(laid), 'what it holds')}") from None
    problems = problems_of(contents, image_set)
    if problems:
        raise InputError(f"{listed}: not {image_set.name}, {'; '.join(problems)}; see fishr data info {image_set.name}")
    return (*notes, *notes_of(contents))


def _leave_out(laid: Path, unwanted: Sequence[PurePosixPath], source: Path | None) -> tuple[str, ...]:
    if source is None:
        return ()
    there = [laid / place for place in unwanted if (laid / place).is_file()]
    if not there:
        raise InputError(f"{source}: none of its {len(unwanted)} paths is there; expected ENVIRONMENT/CLASS/IMAGE")
    for path in there:
        path.unlink()
    rest = "" if len(there) == len(unwanted) else ", the others are not there"
    return (f"{len(there)} of the {len(unwanted)} images in {source} were left out{rest}",)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
