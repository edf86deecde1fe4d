"""Folder layouts that give unintended classes or too few images: refuse the certain cases, warn of the others."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from fishr.data.images.listed_images import IMAGE_EXTENSIONS, Listed, checked_name
from fishr.errors import InputError

_SPLITS = {"train", "training", "val", "valid", "validation", "crossval", "test", "testing"}


def check_layout(root: Path, listed: Sequence[Listed]) -> None:
    """Refuse a class without a readable file in one environment, and a folder level too many."""
    classes = {name for each in listed for name in each.classes}
    for folder, suffixes in _without_images(listed).items():
        if checked_name(root, folder.split("/")[1]) in classes:
            raise InputError(
                f"{root / folder}: none of its files is read ({_counted(suffixes)}), but the class has images in "
                f"another environment; convert them to one of {', '.join(IMAGE_EXTENSIONS)}, or remove the folder"
            )
    deep = _a_level_too_many(listed)
    if deep and (len(classes) == 1 or _are_splits(listed)):
        raise InputError(f"{root}: {deep}; arrange images as ENVIRONMENT/CLASS/IMAGE, or name the folder that has it")


def layout_warnings(root: Path, listed: Sequence[Listed]) -> tuple[str, ...]:
    """Return what may be unintended in a layout that is accepted, a phrase each."""
    if not root.is_dir():
        return ()
    found = list[str]()
    if deep := _a_level_too_many(listed):
        found.append(deep)
    if _are_splits(listed):
        names = ", ".join(each.name for each in listed)
        found.append(f"its environments are called {names}, as the splits of a data set are")
    found += [
        f"{folder} has no image that is read, but {_counted(suffixes)}"
        for folder, suffixes in _without_images(listed).items()
    ]
    passed = Counter(_suffix(name) for each in listed for name in each.skipped)
    pictures = {suffix: count for suffix, count in passed.items() if _is_picture(suffix)}
    if pictures:
        found.append(f"images are skipped, of other formats or outside the class folders: {_counted(pictures)}")
    return tuple(found)


def warn_of_layout(root: Path, listed: Sequence[Listed]) -> None:
    """Warn of what may be unintended in a folder, before work on its images begins."""
    for warning in layout_warnings(root, listed):
        warnings.warn(f"{root}: {warning}; see `fishr data verify {root}`", stacklevel=2)


def _without_images(listed: Sequence[Listed]) -> dict[str, Counter[str]]:
    """Return the suffixes of the files in class folders without images, by ENVIRONMENT/CLASS as on disk."""
    found = defaultdict[str, Counter[str]](Counter)
    for each in listed:
        taken = {_top(name) for name in each.images.names}
        for name in each.skipped:
            if name.count("/") > 1 and _top(name) not in taken:
                found[_top(name)][_suffix(name)] += 1
    return found


def _a_level_too_many(listed: Sequence[Listed]) -> str:
    """Return a phrase if all images are one folder deeper, in folders of the same names in each class."""
    inside = defaultdict[str, set[str]](set)
    for each in listed:
        for name in each.images.names:
            parts = name.split("/")
            if len(parts) == 3:
                return ""
            inside[_top(name)].add(parts[2])
    shared = sorted(set[str].intersection(*inside.values())) if inside else []
    if len(shared) < 2:
        return ""
    example = listed[0].images.names[0]
    shown = ", ".join(shared[:3]) + (", …" if len(shared) > 3 else "")
    return f"its images are one folder deeper than ENVIRONMENT/CLASS/IMAGE, as {example}, and each class has {shown}"


def _are_splits(listed: Sequence[Listed]) -> bool:
    return all(each.name.lower() in _SPLITS for each in listed)


def _is_picture(suffix: str) -> bool:
    from PIL import Image

    return Image.registered_extensions().get(suffix) in Image.OPEN


def _counted(suffixes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(suffixes.items()))


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _top(name: str) -> str:
    return "/".join(name.split("/", 2)[:2])
