"""Verify an image data set: count its images, compare the layout with what is expected, and decode every image."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from fishr.data.images.decoding import brightest, cause
from fishr.data.images.image_data import list_images
from fishr.data.images.image_environments import ImageSource
from fishr.data.images.image_stores import ImageFiles, Images
from fishr.data.images.layout_warnings import layout_warnings
from fishr.data.images.listed_images import Listed, class_names
from fishr.data.images.unreadable import Unreadable, find_unreadable
from fishr.data.sources.image_sets import ImageSet
from fishr.errors import InputError

_PROBED = 3
_TWELVE_BITS = 1 << 12


@frozen
class Contents:
    """The images of one environment.

    Args:
        classes: Number of images of each class, sorted by name.
        passed_over: Number of other files, which are not read.
    """

    environment: str
    classes: Mapping[str, int]
    passed_over: int = 0

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.classes.values())


@frozen
class Verified:
    """The images found in the folder or list of a data set.

    Args:
        contents: One record for each environment.
        notes: Doubts about the layout, and classes that an environment lacks.
    """

    contents: tuple[Contents, ...]
    unreadable: tuple[Unreadable, ...]
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(each.images for each in self.contents)


def verify_images(
    source: Path | ImageSource,
    expected: ImageSet | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
    data_dir: Path | None = None,
) -> Verified:
    """Check the layout of images, and decode each of them.

    Args:
        source: Folder ENVIRONMENT/CLASS/IMAGE, or a list of images; or a data set of images.
        expected: The data set it should be; None: one of your own.
        progress: Called with the number of images read, and of all.
        data_dir: Data folder of a data set.

    Raises:
        InputError: The layout is not as expected.
    """
    where, listed = (source, list_images(source)) if isinstance(source, Path) else source.listed(data_dir)
    contents = contents_of(listed)
    if expected:
        check_contents(contents, expected, where)
    class_names(where, listed)
    paths = [path for each in listed for path in each.paths()]
    others = [each.images for each in listed if not isinstance(each.images, ImageFiles)]
    total, done = sum(each.images for each in contents), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(done, total)

    advance(0)
    unreadable = (
        *find_unreadable(paths, full=True, progress=advance),
        *(found for images in others for found in _undecodable(where, images, advance)),
    )
    notes = (
        *(() if others else layout_warnings(where, listed)),
        *notes_of(contents),
        *(() if unreadable else _dark(listed)),
    )
    return Verified(contents, unreadable, notes)


def _undecodable(where: Path, images: Images, progress: Callable[[int], object]) -> Iterator[Unreadable]:
    """Decode images that are not in files of their own."""
    for row, name in enumerate(images.names):
        try:
            images.read(row)
        except InputError as error:
            yield Unreadable(where / name, cause(error.__cause__ or error))
        progress(1)


def contents_of(listed: Sequence[Listed]) -> tuple[Contents, ...]:
    """Count the images of environments."""
    return tuple(Contents(each.name, dict(sorted(Counter(each.classes).items())), len(each.skipped)) for each in listed)


def check_contents(contents: Sequence[Contents], expected: ImageSet, source: object) -> None:
    """Refuse images that are not those of a data set."""
    found, environments = [each.environment for each in contents], expected.environments
    classes = {name for each in contents for name in each.classes}
    problems = [f"{each.folder} is missing" for each in environments if not any(map(each.is_called, found))]
    problems += [f"{name} is no environment" for name in found if not any(one.is_called(name) for one in environments)]
    if len(classes) != expected.classes:
        problems.append(f"{len(classes)} classes, expected {expected.classes}")
    if problems:
        raise InputError(f"{source}: not {expected.name}, {'; '.join(problems)}; see fishr data info {expected.name}")


def notes_of(contents: Sequence[Contents]) -> tuple[str, ...]:
    """Return a phrase for each environment that lacks classes of another."""
    classes = sorted({name for each in contents for name in each.classes})
    missing = {each.environment: [name for name in classes if name not in each.classes] for each in contents}
    return tuple(f"{environment} has no image of {', '.join(names)}" for environment, names in missing.items() if names)


def _dark(listed: Sequence[Listed]) -> Iterator[str]:
    """Note environments whose first images of 16 bits use a sixteenth of the range at most, as those of 12 bits do."""
    for each in listed:
        found = [brightest(path) for path in each.paths()[:_PROBED]]
        if found and all(value is not None and value < _TWELVE_BITS for value in found):
            yield (
                f"{each.name}: its first images have 16 bits but no value above {_TWELVE_BITS - 1}, so they "
                "become dark; scale them to the full range"
            )
