"""Entries of folders: which of them are meant, and links, which are followed but never twice to the same folder."""

import os
from collections.abc import Iterator
from pathlib import Path

from fishr.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# What operating systems and network storage leave in folders and archives, in lower case.
_SYSTEM = {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"}


def is_meant(name: str) -> bool:
    """Whether a folder's entry is the data set's: not hidden, and not left there by a system."""
    return not name.startswith(".") and name.lower() not in _SYSTEM


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image which is read."""
    return is_meant(name) and name.lower().endswith(EXTENSIONS)


def entries_of(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders in a folder, links to folders included, and of the other entries that are meant; sorted."""
    folders, files = list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_meant(entry.name):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise _unreadable(error) from error
    return sorted(folders), sorted(files)


def has_images(folder: Path) -> bool:
    """Whether image files lie directly in a folder."""
    return any(is_image(path.name) and path.is_file() for path in folder.iterdir())


def enter(folder: str, entered: dict[str, str]) -> None:
    """Note that a folder is entered, so that no link leads to the same images again.

    Args:
        folder: its path.
        entered: the paths by which folders were entered, by their real paths; it gets one more.

    Raises:
        InputError: the folder was entered already, or is a link to one that contains such a folder.
    """
    real = os.path.realpath(folder)
    first = entered.get(real)
    if first is None and Path(folder).is_symlink():
        inside = real.rstrip(os.sep) + os.sep
        first = next((path for other, path in entered.items() if other.startswith(inside)), None)
    if first is not None:
        raise InputError(f"{folder}: leads to the same images as {first}; remove the link, or one of the two folders")
    entered[real] = folder


def files_below(top: str, entered: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Each folder from ``top`` downward, as its path from there, with the names of the files that are meant."""
    for folder, inner, files in os.walk(top, followlinks=True, onerror=_refuse):
        enter(folder, entered)
        inner[:] = filter(is_meant, inner)
        yield folder[len(top) :], list(filter(is_meant, files))


def _refuse(error: OSError) -> None:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> InputError:
    return InputError(f"{error.filename}: cannot be read ({error.strerror}); ask for the right to, or copy it")
