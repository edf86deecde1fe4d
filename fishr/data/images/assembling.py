"""From listed images, in files or in a cache, to the environments of a benchmark."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from fishr.data.caches import ImageRows, open_images
from fishr.data.domains import Domain, Environments
from fishr.data.images.checking import check_readable
from fishr.data.images.listing import Listed, chosen_environments, class_names, rows_taken
from fishr.data.images.pictures import CachedImages, ImageFiles, Pictures, Prepare
from fishr.errors import InputError
from fishr.paths import in_data_folder


class Settings(Protocol):
    """What folders and lists of images have in common."""

    @property
    def size(self) -> int:
        """Side of an input, pixels."""
        ...

    @property
    def augment(self) -> bool:
        """Whether training images are augmented."""
        ...

    @property
    def augment_evaluation(self) -> bool:
        """Whether images to be evaluated are augmented."""
        ...

    @property
    def environments(self) -> tuple[str, ...] | None:
        """Names of the environments to take; None: all."""
        ...

    @property
    def samples(self) -> int | None:
        """Rows of each environment at most; None: all."""
        ...

    @property
    def cache(self) -> str | None:
        """A file of ``fishr cache images`` to read instead; None: the image files."""
        ...

    @property
    def prepare(self) -> Prepare:
        """Who makes inputs of images."""
        ...


def check_settings(settings: Settings) -> None:
    """Refuse what no images could be read by.

    Raises:
        InputError: a size, a number of samples or a choice of environments outside its range.
    """
    if settings.size < 1:
        raise InputError(f"size: got {settings.size}, expected at least 1 pixel")
    if settings.samples is not None and settings.samples < 1:
        raise InputError(f"samples: got {settings.samples}, expected at least 1 row of each environment")
    names = settings.environments
    if names is not None and (not names or len(set(names)) < len(names)):
        raise InputError(f"environments: got {names}, expected one or more names, once each")


def assemble(
    settings: Settings, source: str, data_dir: Path | None, listed: Callable[[Path], Sequence[Listed]]
) -> Environments:
    """The environments, each image checked but unread.

    Args:
        settings: how they are read.
        source: path of a folder or list of images; a relative one starts at ``data_dir``, as the cache's does.
        data_dir: None: the folder "data".
        listed: lists the images at a path.

    Raises:
        InputError: there is no such source or cache, it is laid out in another way, or images cannot be read.
    """
    if settings.cache is not None:
        where = in_data_folder(settings.cache, data_dir)
        environments = list_cache(where, settings.size, settings.environments)
    else:
        where = in_data_folder(source, data_dir)
        environments = listed(where)
    classes = class_names(where, environments)
    taken = [rows_taken(environment.classes, settings.samples) for environment in environments]
    check_readable(
        [
            environment.images.path(row)
            for environment, rows in zip(environments, taken, strict=True)
            if isinstance(environment.images, ImageFiles)
            for row in rows
        ]
    )
    numbers = {name: number for number, name in enumerate(classes)}
    domains = tuple(
        Domain(
            environment.name,
            Pictures(
                environment.images,
                settings.size,
                settings.augment,
                settings.augment_evaluation,
                rows=tuple(rows),
                prepare=settings.prepare,
            ),
            torch.tensor([numbers[environment.classes[row]] for row in rows]),
        )
        for environment, rows in zip(environments, taken, strict=True)
    )
    return Environments(domains, len(classes))


def list_cache(path: Path, size: int, wanted: Sequence[str] | None = None) -> tuple[Listed, ...]:
    """The images of a file of ``fishr cache images``.

    Args:
        path: of the file.
        size: side that its images must have, pixels.
        wanted: names of the environments to take; None: all.

    Raises:
        InputError: absent, damaged, of another size, or without an environment that is wanted.

    Example:
        >>> list_cache(Path("nowhere.h5"), size=224)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    found = open_images(path)
    if found.size != size:
        raise InputError(
            f"{path}: its images are {found.size} × {found.size} pixels, expected {size} × {size}; make another one "
            f"with `fishr cache images --size {size}`, or set the size to {found.size}"
        )
    domains = {section.name: index for index, section in enumerate(found.sections)}
    cached = ImageRows(path, found.key)
    listed = list[Listed]()
    for name in chosen_environments(path, list(domains), wanted):
        rows = found.domain(domains[name])
        classes = tuple(found.classes[label] for label in rows.labels.tolist())
        listed.append(Listed(name, CachedImages(cached, domains[name], rows.paths), classes))
    return tuple(listed)
