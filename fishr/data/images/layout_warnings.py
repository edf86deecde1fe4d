"""Layouts that give other classes or fewer images than were meant: refused where that is sure, doubted elsewhere."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from fishr.data.images.listed_images import IMAGE_EXTENSIONS, Listed, checked_name
from fishr.errors import InputError

_SPLITS = {"train", "training", "val", "valid", "validation", "crossval", "test", "testing"}


def check_layout(root: Path, listed: Sequence[Listed]) -> None:
    """Refuse what cannot be meant: a class none of whose files is read in one environment, and a level too many.

    Args:
        root: folder of the data set.
        listed: its environments, as ``list_folder`` finds them.

    Raises:
        InputError: it is laid out so.
    """
    classes = {name for each in listed for name in each.classes}
    for folder, suffixes in _without_images(listed).items():
        if checked_name(root, folder.split("/")[1]) in classes:
            raise InputError(
                f"{root / folder}: none of its files is read ({_counted(suffixes)}), but the class has images in "
                f"another environment; convert them to one of {', '.join(IMAGE_EXTENSIONS)}, or remove the folder"
            )
    deep = _a_level_too_many(listed)
    if deep and (len(classes) == 1 or _are_splits(listed)):
        raise InputError(f"{root}: {deep}; lay images as ENVIRONMENT/CLASS/IMAGE, or name the folder that has them so")


def layout_doubts(root: Path, listed: Sequence[Listed]) -> tuple[str, ...]:
    """Return what may not be meant in a layout that is taken.

    Args:
        root: folder of the data set; of anything else, such as a list, there are no doubts.
        listed: its environments.

    Returns:
        A phrase each; empty if nothing is doubtful.

    Example:
        >>> from fishr.data.images.image_stores import ImageFiles
        >>> images = ImageFiles(Path("."), ("val/dog/1.jpg", "val/cat/1.jpg"))
        >>> layout_doubts(Path("."), [Listed("val", images, ("dog", "cat"))])
        ('its environments are called val, as the splits of a data set are',)
    """
    if not root.is_dir():
        return ()
    doubts = list[str]()
    if deep := _a_level_too_many(listed):
        doubts.append(deep)
    if _are_splits(listed):
        names = ", ".join(each.name for each in listed)
        doubts.append(f"its environments are called {names}, as the splits of a data set are")
    doubts += [
        f"{folder} has no image that is read, but {_counted(suffixes)}"
        for folder, suffixes in _without_images(listed).items()
    ]
    passed = Counter(_suffix(name) for each in listed for name in each.skipped)
    pictures = {suffix: count for suffix, count in passed.items() if _is_picture(suffix)}
    if pictures:
        doubts.append(f"images are passed over, of other formats or beside the classes: {_counted(pictures)}")
    return tuple(doubts)


def warn_of_layout(root: Path, listed: Sequence[Listed]) -> None:
    """Issue a warning of each doubt, before work begins on the images."""
    for doubt in layout_doubts(root, listed):
        warnings.warn(f"{root}: {doubt}; see `fishr data verify {root}`", stacklevel=2)


def _without_images(listed: Sequence[Listed]) -> dict[str, Counter[str]]:
    """Suffixes of the files in folders of classes that have no image, by ENVIRONMENT/CLASS as on disk."""
    found = defaultdict[str, Counter[str]](Counter)
    for each in listed:
        taken = {_top(name) for name in each.images.names}
        for name in each.skipped:
            if name.count("/") > 1 and _top(name) not in taken:
                found[_top(name)][_suffix(name)] += 1
    return found


def _a_level_too_many(listed: Sequence[Listed]) -> str:
    """Whether all images lie one folder deeper, in folders of the same names in each class."""
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
    return f"its images lie a folder deeper than ENVIRONMENT/CLASS/IMAGE, as {example}, and each class has {shown}"


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
