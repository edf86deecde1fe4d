"""What lies in the folder of a data set of images, and whether that is what is expected."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from fishr.data.images.listing import Listed
from fishr.data.sources.image_set import Environment, ImageSet
from fishr.data.sources.layouts import folders_of


@frozen
class Contents:
    """The images of one environment.

    Args:
        environment: its folder's name.
        classes: how many images each class has, sorted by name.
        passed_over: how many files beside them are no images which are read.

    Example:
        >>> Contents("photo", {"cat": 3, "dog": 4}).images
        7
    """

    environment: str
    classes: Mapping[str, int]
    passed_over: int = 0

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(self.classes.values())


def contents_of(listed: Sequence[Listed]) -> tuple[Contents, ...]:
    """Images of environments, counted.

    Args:
        listed: as ``list_images`` finds them.

    Example:
        >>> contents_of([])
        ()
    """
    return tuple(Contents(each.name, dict(sorted(Counter(each.classes).items())), len(each.passed)) for each in listed)


def is_laid(folder: Path, environments: Sequence[Environment]) -> bool:
    """Whether a folder has one folder for each environment.

    Args:
        folder: of the data set.
        environments: expected.

    Example:
        >>> is_laid(Path("no-such-folder"), (Environment("photo", "P"),))
        False
    """
    names = [path.name for path in folders_of(folder)]
    return all(any(environment.is_called(name) for name in names) for environment in environments)


def problems_of(contents: Sequence[Contents], expected: ImageSet) -> tuple[str, ...]:
    """How images differ from the data set they are to be.

    Args:
        contents: what is there.
        expected: which data set it is to be.

    Returns:
        A phrase each; empty if nothing is wrong.

    Example:
        >>> from fishr.data.sources import find_image_set
        >>> problems_of([Contents(name, {"dog": 1}) for name in ("cartoon", "photo", "sketch")], find_image_set("PACS"))
        ('art_painting is missing', '1 classes, expected 7')
    """
    there, wanted = [each.environment for each in contents], expected.environments
    classes = {name for each in contents for name in each.classes}
    problems = [f"{each.folder} is missing" for each in wanted if not any(map(each.is_called, there))]
    problems += [f"{name} is no environment" for name in there if not any(each.is_called(name) for each in wanted)]
    if len(classes) != expected.classes:
        problems.append(f"{len(classes)} classes, expected {expected.classes}")
    return tuple(problems)


def notes_of(contents: Sequence[Contents]) -> tuple[str, ...]:
    """What is worth knowing of images that may well be right: classes that an environment lacks.

    Args:
        contents: what is there.

    Returns:
        A phrase for each environment that lacks classes of another.

    Example:
        >>> notes_of([Contents("photo", {"cat": 1, "dog": 1}), Contents("sketch", {"dog": 1})])
        ('sketch has no image of cat',)
    """
    classes = sorted({name for each in contents for name in each.classes})
    missing = {each.environment: [name for name in classes if name not in each.classes] for each in contents}
    return tuple(f"{environment} has no image of {', '.join(names)}" for environment, names in missing.items() if names)
