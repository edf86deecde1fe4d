"""Environments of images: from a listing of their source, or from a cache that was made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch

from fishr.checks import near, whole
from fishr.data.domains import Domain
from fishr.data.environments import Environments
from fishr.data.images.augmentation import Augmentation
from fishr.data.images.image_inputs import ImageInputs, Prepare
from fishr.data.images.listed_images import Listed, chosen_environments, class_names, portable, rows_taken
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.images.unreadable import check_readable
from fishr.errors import InputError
from fishr.paths import in_data_folder


@runtime_checkable
class ImageSource(Protocol):
    """Settings of a data set of images, as those of ``ImageFolders``, and the listing of its images."""

    @property
    def preprocessing(self) -> Preprocessing | None: ...
    @property
    def size(self) -> int: ...
    @property
    def augment_evaluation(self) -> bool: ...
    @property
    def environments(self) -> tuple[str, ...] | None: ...
    @property
    def samples(self) -> int | None: ...
    @property
    def cache(self) -> str | None: ...
    @property
    def prepare(self) -> Prepare: ...

    def listed(self, data_dir: Path | None) -> tuple[Path, tuple[Listed, ...]]:
        """Return the path of the source, and its images by environment."""
        ...


def input_size(data: ImageSource) -> int:
    """Return the side of an input where none is given."""
    return (data.preprocessing or Preprocessing()).size


def check_size(data: ImageSource, attribute: object, size: int) -> None:
    """Refuse a size below 1, or another one than that of the preprocessing."""
    whole(1)(data, attribute, size)
    if data.preprocessing is not None and data.preprocessing.size != size:
        raise InputError(f"size: got {size}, expected {data.preprocessing.size} as in preprocessing; give one of them")


def image_environments(
    data: ImageSource,
    augment: Augmentation,
    data_dir: Path | None,
    splits: tuple[str, ...] | None = None,
    by_value: bool = False,
    grouped: bool = False,
) -> Environments:
    """List images of a source or its cache, check their files, and number the classes of all splits."""
    preprocessing = data.preprocessing or Preprocessing(data.size)
    if data.cache is None:
        where, listed = data.listed(data_dir)
    else:
        where = in_data_folder(data.cache, data_dir)
        listed = list_cache(where, preprocessing, data.environments)
    names = class_names(where, listed)
    if by_value and all(name.isdecimal() for name in names):
        names = tuple(sorted(names, key=int))
    classes = {name: number for number, name in enumerate(names)}
    chosen = list[tuple[Listed, list[int]]]()
    for each, rows in zip(listed, _rows_of(where, data, listed, splits, data_dir), strict=True):
        taken = rows_taken([each.classes[row] for row in rows], data.samples)
        if rows or splits is None:
            chosen.append((each, [rows[index] for index in taken]))
    check_readable([path for each, rows in chosen for path in each.paths(rows)])
    domains, groups = list[Domain](), _listed_values("groups", data, listed, data_dir) if grouped else None
    for each, rows in chosen:
        inputs = ImageInputs(
            each.images, preprocessing, augment, data.augment_evaluation, rows=tuple(rows), prepare=data.prepare
        )
        labels = torch.tensor([classes[each.classes[row]] for row in rows])
        own = None if groups is None else _numbered(where, groups, each, rows)
        domains.append(Domain(each.name, inputs, labels, groups=own))
    return Environments(tuple(domains), len(classes), names)


def _rows_of(
    where: Path, data: ImageSource, listed: Sequence[Listed], splits: tuple[str, ...] | None, data_dir: Path | None
) -> list[list[int]]:
    """Return the rows of each environment that are in some splits, or all."""
    if splits is None:
        return [list(range(len(each.classes))) for each in listed]
    found = _listed_values("splits", data, listed, data_dir)
    known = sorted(set(found.values()))
    for split in splits:
        if split not in known:
            lacks = f"it has {', '.join(known)}" if known else "name their column in columns.split"
            raise InputError(f"{where}: it has no split {split!r}{near(split, known)}; {lacks}")
    return [
        [row for row, name in enumerate(each.images.names) if found.get((each.name, portable(name))) in splits]
        for each in listed
    ]


def _listed_values(
    which: Literal["splits", "groups"], data: ImageSource, listed: Sequence[Listed], data_dir: Path | None
) -> dict[tuple[str, str], str]:
    """Return the split or group of each image, by environment and name."""
    # A cache keeps neither, so its source is read for them.
    source = listed if data.cache is None else data.listed(data_dir)[1]
    found = dict[tuple[str, str], str]()
    for each in source:
        values: tuple[str, ...] | None = getattr(each, which)
        for name, value in zip(each.images.names, values or (), strict=values is not None):
            found[each.name, portable(name)] = value
    return found


def _numbered(where: Path, groups: dict[tuple[str, str], str], each: Listed, rows: Sequence[int]) -> torch.Tensor:
    """Return the number of the group of each row of an environment."""
    names = [portable(each.images.names[row]) for row in rows]
    if unknown := [name for name in names if (each.name, name) not in groups]:
        raise InputError(f"{where}: its image {unknown[0]} has no group in the list; make the file again")
    own = [groups[each.name, name] for name in names]
    numbers = {group: number for number, group in enumerate(sorted(set(own)))}
    return torch.tensor([numbers[group] for group in own])


def list_cache(path: Path, preprocessing: Preprocessing, names: Sequence[str] | None = None) -> tuple[Listed, ...]:
    """Return the images of a file made by ``fishr cache images``, of these environments or of all."""
    # HDF5 takes long to load, and most data sets do without.
    from fishr.data.caches.image_cache import CachedImages, open_images

    found, size = open_images(path), preprocessing.size
    if found.size != size:
        raise InputError(
            f"{path}: its images are {found.size} × {found.size} pixels, expected {size} × {size}; make another one "
            f"with `fishr cache images --size {size}`, or set the size to {found.size}"
        )
    if found.resizing != preprocessing.resizing:
        raise InputError(
            f"{path}: its images were resized {found.resizing}, expected {preprocessing.resizing}; make another one "
            f"with `fishr cache images --size {size} --interpolation {preprocessing.interpolation}"
            f"{'' if preprocessing.antialias else ' --no-antialias'}`"
        )
    domains = {section.name: index for index, section in enumerate(found.sections)}
    listed = list[Listed]()
    for name in chosen_environments(path, list(domains), names):
        paths, labels = found.domain(domains[name])
        classes = tuple(found.classes[label] for label in labels.tolist())
        listed.append(Listed(name, CachedImages(path, found.key, domains[name], paths), classes))
    return tuple(listed)
