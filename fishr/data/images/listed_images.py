"""Listed images of environments: names, classes, and the choice of environments and samples."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from attrs import frozen

from fishr.data.images.image_stores import ImageFiles, Images
from fishr.errors import InputError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@frozen(eq=False)
class Listed:
    """Images of one environment, unread, with class name, split and group of each, and the names of skipped files."""

    name: str
    images: Images
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    splits: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    def paths(self, rows: Sequence[int] | None = None) -> list[Path]:
        """Return the paths of all images, or of some; none if they are not in files."""
        images = self.images
        if not isinstance(images, ImageFiles):
            return []
        return [images.path(row) for row in (range(len(images.names)) if rows is None else rows)]


def chosen_environments(where: object, found: Sequence[str], names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the environments in the order of their indices: as given, or all, sorted."""
    if names is None:
        return tuple(sorted(found))
    chosen = [checked_name("environments", name) for name in names]
    missing = sorted(set(chosen) - set(found))
    if missing:
        raise InputError(
            f"{where}: it has no environment {_and([repr(name) for name in missing])}, expected "
            f"{_and(sorted(chosen))}; it has {_and(sorted(found)) or 'none'}"
        )
    return tuple(chosen)


def class_names(where: object, environments: Sequence[Listed]) -> tuple[str, ...]:
    """Return the sorted classes of all environments; refuse fewer than two, and two that differ in case alone."""
    classes = sorted({name for environment in environments for name in environment.classes})
    if len(classes) < 2:
        got = f"the class {classes[0]!r} alone" if classes else "no class"
        raise InputError(f"{where}: got {got}, expected at least 2 to tell apart")
    _check_spelling(where, {each.name: set(each.classes) for each in environments})
    return tuple(classes)


def rows_taken(classes: Sequence[str], samples: int | None) -> list[int]:
    """Return that many rows of an environment, sorted, the same in every run; each class keeps one if there is room."""
    count = len(classes)
    if samples is None or samples >= count:
        return list(range(count))
    shuffled = np.random.RandomState(0).permutation(count).tolist()
    # A class's later rows do not replace its first.
    firsts = {classes[row]: row for row in reversed(shuffled)}
    kept = set(firsts.values())
    return sorted(sorted(shuffled, key=lambda row: row not in kept)[:samples])


def _check_spelling(where: object, classes: Mapping[str, set[str]]) -> None:
    found = dict[str, dict[str, str]]()
    for environment, names in classes.items():
        for name in sorted(names):
            found.setdefault(folded(name), {}).setdefault(name, environment)
    for spelled in found.values():
        # Beside each other, as letters are, they are meant to be two.
        if len(spelled) > 1 and not any(len(names & spelled.keys()) > 1 for names in classes.values()):
            (one, here), (other, there) = list(spelled.items())[:2]
            raise InputError(
                f"{where}: the class is {one!r} in {here} but {other!r} in {there}; give it one name everywhere"
            )


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def checked_name(where: object, name: str) -> str:
    """Return the name of an environment or class in Unicode's composed form (NFC); macOS writes the other one."""
    if portable(name) != name:
        raise InputError(f"{where}: got the name {portable(name)}, which is not UTF-8; rename it")
    return unicodedata.normalize("NFC", name)


def portable(name: str) -> str:
    """Return a file name as text that any program can store: a byte that is not UTF-8 becomes ``\\udcXX``."""
    return name.encode(errors="backslashreplace").decode()


def folded(name: str) -> str:
    """Return the same text for names that differ only in case or Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
