"""Files that are either whole or absent, whenever the writer is killed."""

import os
from contextlib import suppress
from glob import escape
from pathlib import Path

from fishr.errors import RunFailed


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``: a reader sees the previous file or the whole new one, never a part.

    Args:
        path: where; its folder exists.
        content: the file's bytes.

    Raises:
        RunFailed: the bytes could not be written; the previous file, if any, is as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "result.json", b"{}")
        ...     print((Path(folder) / "result.json").read_text(), len(list(Path(folder).iterdir())))
        {} 1
    """
    remove_leftovers(path)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        kept = "the previous file is kept" if path.exists() else "nothing was left behind"
        raise RunFailed(f"{path}: could not be written ({error.strerror}); {kept}") from error


def remove_leftovers(path: Path) -> None:
    """Remove what writers of ``path`` that were killed half-way left beside it.

    Example:
        >>> remove_leftovers(Path("no-such-folder") / "checkpoint.pt")
    """
    for leftover in path.parent.glob(f"{escape(path.name)}.tmp-*"):
        leftover.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut.

    Example:
        >>> sync_folder(Path("."))
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
