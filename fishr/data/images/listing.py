"""The images of environments, listed but unread; which environments and rows of them are taken."""

from collections.abc import Sequence

import numpy as np
from attrs import frozen

from fishr.data.images.pictures import Images
from fishr.errors import InputError


@frozen(eq=False)
class Listed:
    """The images of one environment.

    Args:
        name: of the environment.
        images: n of them.
        classes: [n], the name of each image's class.

    Example:
        >>> from pathlib import Path
        >>> from fishr.data.images.pictures import ImageFiles
        >>> Listed("photo", ImageFiles(Path("PACS"), ("photo/dog/1.jpg",)), ("dog",)).classes
        ('dog',)
    """

    name: str
    images: Images
    classes: tuple[str, ...]


def chosen_environments(where: object, found: Sequence[str], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The environments that are taken, in the order of their indices.

    Args:
        where: what has them, for the message.
        found: names of those there are.
        wanted: names of those to take, in this order; None: all, sorted.

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
        InputError: fewer than two.

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


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
