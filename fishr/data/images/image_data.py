"""Data sets of images: folders, lists, and the caches made of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from attrs import Factory, field, frozen
from attrs.validators import optional

from fishr.checks import whole
from fishr.data.domains import Domain
from fishr.data.environments import Environments
from fishr.data.images.augmentation import Augmentation, DomainBedAugmentation, augmentation_of
from fishr.data.images.folder_listing import list_folder
from fishr.data.images.image_inputs import ImageInputs, Prepare
from fishr.data.images.layout_warnings import warn_of_layout
from fishr.data.images.list_files import LIST_EXTENSIONS, list_file
from fishr.data.images.listed_images import Listed, chosen_environments, class_names, rows_taken
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.images.unreadable import check_readable
from fishr.errors import InputError
from fishr.paths import in_data_folder


def _distinct(record: object, attribute: object, names: tuple[str, ...] | None) -> None:
    if names is not None and (not names or len(set(names)) < len(names)):
        raise InputError(f"environments: got {names}, expected one or more names, once each")


def _size(data: "ImageFolders | ImageList") -> int:
    return (data.preprocessing or Preprocessing()).size


def _check_size(data: "ImageFolders | ImageList", attribute: object, size: int) -> None:
    whole(1)(data, attribute, size)
    if data.preprocessing is not None and data.preprocessing.size != size:
        raise InputError(f"size: got {size}, expected {data.preprocessing.size} as in preprocessing; give one of them")


@frozen
class ImageFolders:
    """Images in ``<data_dir>/<folder>/<environment>/<class>/<image>``, read when a batch needs them.

    The classes are those of all environments together; an environment may lack some. Images are sorted as torchvision
    sorts them, by class, folder and file name, so that splits equal DomainBed's. Other files, hidden files and system
    folders such as @eaDir are skipped. Links are followed, but no folder is read twice. Names are compared in
    Unicode's composed form.

    Args:
        folder: Path of the data set; relative to ``data_dir``, or to the folder "data" if that is None.
        size: Side of an input, pixels; by default that of ``preprocessing``.
        augment: Augmentation of training images; True: DomainBed's; False: none.
        augment_evaluation: Augment evaluation images too, each always in the same way.
        environments: Names of the environments to use, in this order; None: all, sorted.
        samples: Largest number of samples of each environment; the same samples in every run, from all classes. None:
            all.
        cache: Path of a file made by ``fishr cache images``, read instead of the folder, which may be absent; relative
            to the same place as ``folder``.
        prepare: Where inputs are made. "reader": the thread that reads an image also augments it. "device": threads
            read and crop, and the colors of a batch are changed on the model's device. "device_cache" (before: "held"):
            as "device", but all images are read once, resized, and kept on the device as uint8.
        preprocessing: Size, interpolation and normalization of the inputs. None: ImageNet's at ``size``.

    Raises:
        InputError: A setting is out of range. When called: the folder is missing or has another layout, images cannot
            be read, or the cache was resized in another way or lacks an environment.

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    folder: str
    # Before the size, which is taken from it; a keyword, and so behind all others for callers.
    preprocessing: Preprocessing | None = field(default=None, kw_only=True)
    size: int = field(default=Factory(_size, takes_self=True), validator=_check_size)
    augment: Augmentation = field(default=DomainBedAugmentation(), converter=augmentation_of)
    augment_evaluation: bool = False
    environments: tuple[str, ...] | None = field(default=None, validator=_distinct)
    samples: int | None = field(default=None, validator=optional(whole(1)))
    cache: str | None = None
    prepare: Prepare = "reader"

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """List the files and check that they can be read; nothing is random, so ``seed`` is not used."""
        return _assemble(self, self.folder, data_dir, list_folder)


@frozen
class ImageList:
    """Images named in a file with their environments and classes, read when a batch needs them.

    The file is a .csv with the header environment,class,path, a .json list of objects with these keys, or a .jsonl
    with one such object a line. Relative image paths start at the list's folder. Classes are sorted by name; the
    images of an environment keep the order of the list.

    Args:
        path: Path of the list; relative to ``data_dir``, or to the folder "data" if that is None.
        size, augment, augment_evaluation, environments, samples, cache, prepare, preprocessing: As in
            :class:`ImageFolders`.

    Raises:
        InputError: A setting is out of range. When called: the list is missing or malformed, images cannot be read, or
            the cache was resized in another way or lacks an environment.
    """

    path: str
    # Before the size, which is taken from it; a keyword, and so behind all others for callers.
    preprocessing: Preprocessing | None = field(default=None, kw_only=True)
    size: int = field(default=Factory(_size, takes_self=True), validator=_check_size)
    augment: Augmentation = field(default=DomainBedAugmentation(), converter=augmentation_of)
    augment_evaluation: bool = False
    environments: tuple[str, ...] | None = field(default=None, validator=_distinct)
    samples: int | None = field(default=None, validator=optional(whole(1)))
    cache: str | None = None
    prepare: Prepare = "reader"

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Read the list and check its files; nothing is random, so ``seed`` is not used."""
        return _assemble(self, self.path, data_dir, list_file)


def list_images(source: Path) -> tuple[Listed, ...]:
    """Return the images of a folder or list, by environment."""
    is_list = source.suffix.lower() in LIST_EXTENSIONS and not source.is_dir()
    return list_file(source) if is_list or source.is_file() else list_folder(source)


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


def _assemble(
    data: ImageFolders | ImageList,
    source: str,
    data_dir: Path | None,
    list_source: Callable[[Path, Sequence[str] | None], tuple[Listed, ...]],
) -> Environments:
    """List the images of the source or its cache, check that files can be read, and number the classes."""
    where = in_data_folder(data.cache or source, data_dir)
    preprocessing = data.preprocessing or Preprocessing(data.size)
    if data.cache is None:
        listed = list_source(where, data.environments)
        warn_of_layout(where, listed)
    else:
        listed = list_cache(where, preprocessing, data.environments)
    classes = {name: number for number, name in enumerate(class_names(where, listed))}
    chosen = [(each, rows_taken(each.classes, data.samples)) for each in listed]
    check_readable([path for each, rows in chosen for path in each.paths(rows)])
    domains = list[Domain]()
    for each, rows in chosen:
        inputs = ImageInputs(
            each.images, preprocessing, data.augment, data.augment_evaluation, rows=tuple(rows), prepare=data.prepare
        )
        domains.append(Domain(each.name, inputs, torch.tensor([classes[each.classes[row]] for row in rows])))
    return Environments(tuple(domains), len(classes), tuple(classes))
