"""Whether the images of a data set lie as expected and can all be read."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from attrs import frozen

from fishr.data.images.caching import list_images
from fishr.data.images.checking import Unreadable, find_unreadable
from fishr.data.images.decoding import brightest
from fishr.data.images.layout_doubts import layout_doubts
from fishr.data.images.listing import Listed, class_names
from fishr.data.images.pictures import ImageFiles
from fishr.data.sources.image_set import ImageSet
from fishr.data.sources.inspection import Contents, contents_of, notes_of, problems_of
from fishr.errors import InputError

_LOOKED_AT = 3
_TWELVE_BITS = 1 << 12


@frozen
class Verified:
    """What was found in the folder or list of a data set.

    Args:
        contents: the environments.
        unreadable: images that cannot be read.
        notes: doubts about the layout, and classes that an environment lacks.

    Example:
        >>> Verified((Contents("photo", {"dog": 2}), Contents("sketch", {"dog": 3})), ()).images
        5
    """

    contents: tuple[Contents, ...]
    unreadable: tuple[Unreadable, ...]
    notes: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(each.images for each in self.contents)


def verify_images(
    source: Path, expected: ImageSet | None = None, progress: Callable[[int, int], object] = lambda done, total: None
) -> Verified:
    """Check the layout of images, and decode each of them.

    Args:
        source: a folder ENVIRONMENT/CLASS/IMAGE, or a list of images.
        expected: which data set it is to be; None: one's own.
        progress: is told how many images are read, and of how many.

    Raises:
        InputError: the layout is not as expected.

    Example:
        >>> verify_images(Path("nowhere"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere: no such folder; ...
    """
    listed = list_images(source)
    contents = contents_of(listed)
    problems = problems_of(contents, expected) if expected else ()
    if expected and problems:
        raise InputError(f"{source}: not {expected.name}, {'; '.join(problems)}; see fishr data info {expected.name}")
    class_names(source, listed)
    paths = [
        each.images.path(row)
        for each in listed
        if isinstance(each.images, ImageFiles)
        for row in range(len(each.images.names))
    ]
    done = 0

    def tell(more: int) -> None:
        nonlocal done
        done += more
        progress(done, len(paths))

    tell(0)
    unreadable = find_unreadable(paths, full=True, progress=tell)
    notes = (*layout_doubts(source, listed), *notes_of(contents), *(() if unreadable else _dark(listed)))
    return Verified(contents, unreadable, notes)


def _dark(listed: Sequence[Listed]) -> Iterator[str]:
    """Environments whose first images of 16 bits use a sixteenth of the range at most, as those of 12 bits do."""
    for each in listed:
        if isinstance(each.images, ImageFiles):
            found = [brightest(each.images.path(row)) for row in range(min(_LOOKED_AT, len(each.images.names)))]
            if all(value is not None and value < _TWELVE_BITS for value in found):
                yield (
                    f"{each.name}: its first images have 16 bits but no value above {_TWELVE_BITS - 1}, so that they "
                    "become dark; scale them to the full range"
                )
