"""The images of environments, listed but unread; which environments and rows of them are taken."""

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen

from fishr.data.images.image_stores import Images
from fishr.errors import InputError

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@frozen(eq=False)
class Listed:
    """The images of one environment.

    Args:
        name: of the environment.
        images: n of them.
        classes: [n], the name of each image's class.
        skipped: names of files beside them that are no images which are read.

    Example:
        >>> from pathlib import Path
        >>> from fishr.data.images.image_stores import ImageFiles
        >>> Listed("photo", ImageFiles(Path("PACS"), ("photo/dog/1.jpg",)), ("dog",)).classes
        ('dog',)
    """

    name: str
    images: Images
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def chosen_environments(where: object, found: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The environments that are taken, in the order of their indices.

    Args:
        where: what has them, for the message.
        found: names of those there are.
        wanted: names of those to take, in this order, in any of Unicode's forms; None: all, sorted.

    Raises:
        InputError: one that is wanted is not there.

    Example:
        >>> chosen_environments("PACS", ["photo", "art"], ["photo", "sketch"])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: PACS: it has no environment 'sketch', expected photo and sketch; it has art and photo
    """
    if wanted is None:
        return tuple(sorted(found))
    wanted = [checked_name("environments", name) for name in wanted]
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise InputError(
            f"{where}: it has no environment {_and([repr(name) for name in missing])}, expected "
            f"{_and(sorted(wanted))}; it has {_and(sorted(found)) or 'none'}"
        )
    return tuple(wanted)


def class_names(where: object, environments: Sequence[Listed]) -> tuple[str, ...]:
    """The classes of all environments together, sorted, so that a label means the same in each.

    Args:
        where: what has them, for the message.
        environments: any of which may lack a class.

    Raises:
        InputError: fewer than two; or two that differ in case alone and are never in one environment, so that one is
            likely meant.

    Example:
        >>> class_names("PACS", [])
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: PACS: got no class, expected at least 2 to tell apart
    """
    classes = sorted({name for environment in environments for name in environment.classes})
    if len(classes) < 2:
        got = f"the class {classes[0]!r} alone" if classes else "no class"
        raise InputError(f"{where}: got {got}, expected at least 2 to tell apart")
    _check_spelling(where, {each.name: set(each.classes) for each in environments})
    return tuple(classes)


def rows_taken(classes: Sequence[str], samples: int | None) -> list[int]:
    """So many rows of an environment, the same in every run, in their order.

    The first row of each class in a fixed random order is taken, so that no class is lost while there is room; the
    next rows in that order fill up.

    Args:
        classes: the class of each row.
        samples: how many rows at most; None: all.

    Example:
        >>> rows_taken(["cat"] * 50 + ["dog"], samples=3)
        [11, 29, 50]
    """
    count = len(classes)
    if samples is None or samples >= count:
        return list(range(count))
    shuffled = np.random.RandomState(0).permutation(count).tolist()
    # A class's later rows do not replace its first.
    firsts = {classes[row]: row for row in reversed(shuffled)}
    kept = set(firsts.values())
    ahead = [row for row in shuffled if row in kept]
    return sorted([*ahead, *(row for row in shuffled if row not in kept)][:samples])


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
                f"{where}: the class is {one!r} in {here} but {other!r} in {there}; give it the same name in each "
                "environment"
            )


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def checked_name(where: object, name: str) -> str:
    """Return the name of an environment or class in Unicode's composed form (NFC); macOS writes the other one.

    Args:
        where: what has it, for the message.
        name: as the system gives it.

    Raises:
        InputError: it is no UTF-8.

    Example:
        >>> checked_name("data", "cafe\u0301") == "caf\u00e9"
        True
    """
    if portable(name) != name:
        raise InputError(f"{where}: got the name {portable(name)}, which is not UTF-8; rename it")
    return unicodedata.normalize("NFC", name)


def portable(name: str) -> str:
    """Return the name of a file as text that any program can store: bytes that are not UTF-8 become ``\\udcXX``.

    Example:
        >>> portable("caf" + chr(0xDCE9) + ".png")
        'caf\\\\udce9.png'
    """
    return name.encode(errors="backslashreplace").decode()


def folded(name: str) -> str:
    """Return what names have in common that differ in case or Unicode's form alone.

    Example:
        >>> folded("Caf\u00c9") == folded("cafe\u0301")
        True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
