"""Find image files that cannot be read, before a run needs them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attrs import frozen

from fishr.data.images.decoding import cause, decode
from fishr.errors import InputError, reason

_LISTED = 10
_THREADS = 8
_FILES_A_TASK = 256
# Files that passed in this process, with size and time, so that a sweep's jobs do not check them again.
_passed = set[tuple[str, int, int]]()


@frozen
class Unreadable:
    """An image file that cannot be read completely.

    Args:
        reason: Why, in a few words.
    """

    path: Path
    reason: str


def find_unreadable(
    paths: Sequence[Path], full: bool = False, progress: Callable[[int], object] = lambda files: None
) -> tuple[Unreadable, ...]:
    """Return the files that are no complete images, in their order.

    Without ``full``, a JPEG or PNG is checked by its header and its end, which finds truncated files; other formats are
    decoded. Files that passed in this process and have not changed are not checked again.

    Args:
        full: Decode every file, which finds damage inside as well.

    Example:
        >>> find_unreadable([Path("nowhere.jpg")])
        (Unreadable(path=PosixPath('nowhere.jpg'), reason='No such file or directory'),)
    """
    tasks = [paths[start : start + _FILES_A_TASK] for start in range(0, len(paths), _FILES_A_TASK)]

    def check(task: Sequence[Path]) -> list[Unreadable]:
        return [Unreadable(path, problem) for path in task if (problem := _problem(path, full))]

    found = list[Unreadable]()
    with ThreadPoolExecutor(_THREADS) as pool:
        for task, problems in zip(tasks, pool.map(check, tasks), strict=True):
            found += problems
            progress(len(task))
    return tuple(found)


def check_readable(paths: Sequence[Path]) -> None:
    """Refuse files that are no complete images, all in one error."""
    found = find_unreadable(paths)
    if found:
        shown = ", ".join(f"{each.path} ({each.reason})" for each in found[:_LISTED])
        more = f", … and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        remedy = "delete or replace them, or run `fishr data verify`"
        if all("\\" in each.path.name for each in found):
            remedy = "write / instead of \\ in their paths"
        raise InputError(f"{len(found)} of {len(paths)} images cannot be read: {shown}{more}; {remedy}")


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
        return cause(error.__cause__ or error)
    except OSError as error:
        return reason(error)
    return ""


def _looks_whole(path: Path) -> bool:
    """Return whether header and end are those of a complete JPEG or PNG; other formats must be decoded."""
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
    # Decoding gives the better reason.
    except Exception:
        return False
