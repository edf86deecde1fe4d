"""Whether image files can be read, found out before a run needs them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

from fishr.data.images.decoding import decode, reason
from fishr.errors import InputError

_LISTED = 10
_THREADS = 8
_FILES_A_TASK = 256
# Files that passed in this process, as they were then, so that a sweep's jobs do not look again.
_passed = set[tuple[str, int, int]]()


@frozen
class Unreadable:
    """A file that is no whole image.

    Args:
        path: of the file.
        reason: in a few words.

    Example:
        >>> Unreadable(Path("photo/dog/1.jpg"), "empty file").reason
        'empty file'
    """

    path: Path
    reason: str


def find_unreadable(
    paths: Sequence[Path], full: bool = False, progress: Callable[[int], object] = lambda files: None
) -> tuple[Unreadable, ...]:
    """The files that are no whole images.

    Without ``full`` the header and, of JPEG and PNG, the mark at the end are looked at, which finds what was cut short,
    and other formats are decoded; files that passed in this process and have not changed are not looked at again.

    Args:
        paths: of the files.
        full: decode every file, which finds damage inside as well.
        progress: is told numbers of files that were looked at.

    Returns:
        The unreadable ones, in their order.

    Example:
        >>> find_unreadable([Path("nowhere.jpg")])
        (Unreadable(path=PosixPath('nowhere.jpg'), reason='no such file or directory'),)
    """
    tasks = [paths[start : start + _FILES_A_TASK] for start in range(0, len(paths), _FILES_A_TASK)]

    def look(task: Sequence[Path]) -> list[Unreadable]:
        return [Unreadable(path, problem) for path in task if (problem := _problem(path, full))]

    found = list[Unreadable]()
    with ThreadPoolExecutor(_THREADS) as pool:
        for task, problems in zip(tasks, pool.map(look, tasks), strict=True):
            found += problems
            progress(len(task))
    return tuple(found)


def check_readable(paths: Sequence[Path]) -> None:
    """Refuse files that are no whole images, all in one error.

    Args:
        paths: of the files.

    Raises:
        InputError: some cannot be read.

    Example:
        >>> check_readable([Path("nowhere.jpg")])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: 1 of 1 images cannot be read: nowhere.jpg (no such file or directory); delete or \
replace them, or run `fishr data verify`
    """
    found = find_unreadable(paths)
    if found:
        shown = ", ".join(f"{each.path} ({each.reason})" for each in found[:_LISTED])
        more = f", … and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise InputError(
            f"{len(found)} of {len(paths)} images cannot be read: {shown}{more}; delete or replace them, or run "
            "`fishr data verify`"
        )


def _problem(path: Path, full: bool) -> str:
    try:
        stat = path.stat()
        known = (str(path), stat.st_size, stat.st_mtime_ns)
        if not stat.st_size:
            return "empty file"
        if full or (known not in _passed and not _looks_whole(path)):
            decode(path)
        _passed.add(known)
    except InputError as error:
        return reason(error.__cause__ or error)
    except OSError as error:
        return reason(error)
    return ""


def _looks_whole(path: Path) -> bool:
    """Whether header and end are those of a whole JPEG or PNG; anything else is to be decoded."""
    from PIL import Image

    endings = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    try:
        with Image.open(path) as image:
            ending = endings.get(str(image.format))
            if ending is None or 0 in image.size:
                return False
        with path.open("rb") as file:
            file.seek(-len(ending), 2)
            return file.read() == ending
    # Whatever is wrong, decoding says it better.
    except Exception:
        return False
