"""List the images of a folder ENVIRONMENT/CLASS/IMAGE."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from fishr.data.images.image_stores import ImageFiles
from fishr.data.images.layout_warnings import check_layout
from fishr.data.images.listed_images import IMAGE_EXTENSIONS, Listed, checked_name, chosen_environments
from fishr.errors import InputError, reason

LAYOUT = "ENVIRONMENT/CLASS/IMAGE"

# Left in folders and archives by operating systems and network storage, in lower case.
_SYSTEM = {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"}


def list_folder(root: Path, names: Sequence[str] | None = None) -> tuple[Listed, ...]:
    """Return the images below a folder, by environment: of these names, or of all."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; run `fishr data download NAME`, or put images there as {LAYOUT}")
    folders = _environments(root)
    if not folders:
        got = "its images are directly in it" if _has_images(root) else "it has no images"
        raise InputError(f"{root}: {got}, expected folders of environments; arrange images as {LAYOUT}")
    entered = dict[str, str]()
    _enter(str(root), entered)
    listed = [_listed(root, folders[name], name, entered) for name in chosen_environments(root, list(folders), names)]
    if not any(each.classes or _has_images(root / folders[each.name]) for each in listed):
        raise InputError(
            f"{root}: it has no images (files such as {', '.join(IMAGE_EXTENSIONS[:3])}) in {len(listed)} folders; "
            f"arrange them as {LAYOUT}"
        )
    for each in listed:
        if not each.classes:
            raise _no_classes(root / folders[each.name])
    check_layout(root, listed)
    return tuple(listed)


def has_class_folders(folder: Path) -> bool:
    """Return whether images are in the folders of a folder, as in CLASS/IMAGE."""
    return folder.is_dir() and any(_has_images(folder / name) for name in _entries(folder)[0])


def list_class_folders(folder: Path) -> Listed:
    """Return the images of a folder CLASS/IMAGE as one environment of the folder's name."""
    named = folder.resolve() if folder.name in ("", "..") else folder
    listed = _listed(named.parent, named.name, checked_name(folder, named.name), {})
    check_layout(named.parent, [listed])
    return listed


def is_meant(name: str) -> bool:
    """Return whether a folder's entry belongs to the data: it is neither hidden nor left there by a system."""
    return not name.startswith(".") and name.lower() not in _SYSTEM


def is_image(name: str) -> bool:
    return is_meant(name) and name.lower().endswith(IMAGE_EXTENSIONS)


def _has_images(folder: Path) -> bool:
    return any(is_image(path.name) and path.is_file() for path in folder.iterdir())


def _environments(root: Path) -> dict[str, str]:
    """Return folders by the environments' names."""
    found = dict[str, str]()
    for folder in _entries(root)[0]:
        name = checked_name(root, folder)
        if name in found:
            both = f"{found[name]!a} and {folder!a}"
            raise InputError(f"{root}: the names of the folders {both} look alike; rename one, or move its images")
        found[name] = folder
    return found


def _listed(root: Path, folder: str, name: str, entered: dict[str, str]) -> Listed:
    """Return the images of an environment; it may have none."""
    _enter(str(root / folder), entered)
    groups, beside = _entries(root / folder)
    images, classes, skipped = list[str](), list[str](), [f"{folder}/{file}" for file in beside]
    for group in groups:
        class_name = checked_name(root / folder, group)
        for inner, files in sorted(files_below(f"{root / folder / group}", entered)):
            for file in sorted(files):
                path = f"{folder}/{group}{inner}/{file}"
                if is_image(file):
                    images.append(path)
                    classes.append(class_name)
                else:
                    skipped.append(path)
    return Listed(name, ImageFiles(root, tuple(images)), tuple(classes), tuple(skipped))


def _no_classes(folder: Path) -> InputError:
    if _has_images(folder):
        return InputError(
            f"{folder}: its images are directly in it, expected folders of classes; arrange images as {LAYOUT}, and "
            "name the folder that has the environments"
        )
    return InputError(
        f"{folder}: it has no class, expected folders with images; remove it, name the environments to take, "
        f"or arrange images as {LAYOUT}"
    )


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders in a folder, linked ones included, and of the other entries; sorted."""
    folders, files = list[str](), list[str]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_meant(entry.name):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        _refuse(error)
    return sorted(folders), sorted(files)


def files_below(top: str, entered: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from ``top`` downward, as its path from there, with the names of its files."""
    for folder, inner, files in os.walk(top, followlinks=True, onerror=_refuse):
        _enter(folder, entered)
        inner[:] = sorted(filter(is_meant, inner))
        yield folder[len(top) :], list(filter(is_meant, files))


def _enter(folder: str, entered: dict[str, str]) -> None:
    """Record a folder under its real path; refuse one that was entered before, or that leads above such a folder."""
    real = os.path.realpath(folder)
    first = entered.get(real)
    if first is None and Path(folder).is_symlink():
        inside = real.rstrip(os.sep) + os.sep
        first = next((path for other, path in entered.items() if other.startswith(inside)), None)
    if first is not None:
        raise InputError(f"{folder}: leads to the same images as {first}; remove the link, or one of the two folders")
    entered[real] = folder


def _refuse(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be read ({reason(error)}); ask for access, or copy it") from error
