"""Data sets of images in files: folders and lists."""

from pathlib import Path

from attrs import Factory, field, frozen
from attrs.validators import optional

from fishr.checks import distinct_names, whole
from fishr.data.environments import Environments
from fishr.data.images.augmentation import Augmentation, DomainBedAugmentation, augmentation_of
from fishr.data.images.folder_listing import list_folder
from fishr.data.images.image_environments import check_size, image_environments, input_size
from fishr.data.images.image_inputs import Prepare
from fishr.data.images.layout_warnings import warn_of_layout
from fishr.data.images.list_files import LIST_EXTENSIONS, Columns, list_file
from fishr.data.images.listed_images import Listed
from fishr.data.images.preprocessing import Preprocessing
from fishr.paths import in_data_folder


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
    size: int = field(default=Factory(input_size, takes_self=True), validator=check_size)
    augment: Augmentation = field(default=DomainBedAugmentation(), converter=augmentation_of)
    augment_evaluation: bool = False
    environments: tuple[str, ...] | None = field(default=None, validator=distinct_names)
    samples: int | None = field(default=None, validator=optional(whole(1)))
    cache: str | None = None
    prepare: Prepare = "reader"

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """List the files and check that they can be read; nothing is random, so ``seed`` is not used."""
        return image_environments(self, self.augment, data_dir)

    def listed(self, data_dir: Path | None) -> tuple[Path, tuple[Listed, ...]]:
        """Return the folder, and its images by environment."""
        where = in_data_folder(self.folder, data_dir)
        listed = list_folder(where, self.environments)
        warn_of_layout(where, listed)
        return where, listed


@frozen
class ImageList:
    """Images named in a file with their environments and classes, read when a batch needs them.

    The file is a .csv with a header, such as environment,class,path or the ``metadata.csv`` of a data set of WILDS, a
    .json list of objects with these keys, or a .jsonl with one such object a line. Relative image paths start at the
    list's folder. Classes are sorted by name, whole numbers by value; the images of an environment keep the order of
    the list.

    Args:
        path: Path of the list; relative to ``data_dir``, or to the folder "data" if that is None.
        columns: Names of the columns; None: path, class or label, and environment or domain.
        splits: Take only the images of these splits, whose column ``columns`` names; the classes are those of all.
            None: all.
        size, augment, augment_evaluation, environments, samples, cache, prepare, preprocessing: As in
            :class:`ImageFolders`.

    Raises:
        InputError: A setting is out of range. When called: the list is missing or malformed or lacks a column or split,
            images cannot be read, or the cache was resized in another way or lacks an environment.

    Example:
        >>> columns = Columns(path="train/{filename}", label="y", domain="location", split="split")
        >>> ImageList("iwildcam_v2.0/metadata.csv", columns=columns, splits=("train",)).size
        224
    """

    path: str
    # Before the size, which is taken from it; a keyword, and so behind all others for callers.
    preprocessing: Preprocessing | None = field(default=None, kw_only=True)
    size: int = field(default=Factory(input_size, takes_self=True), validator=check_size)
    augment: Augmentation = field(default=DomainBedAugmentation(), converter=augmentation_of)
    augment_evaluation: bool = False
    environments: tuple[str, ...] | None = field(default=None, validator=distinct_names)
    samples: int | None = field(default=None, validator=optional(whole(1)))
    cache: str | None = None
    prepare: Prepare = "reader"
    columns: Columns | None = field(default=None, kw_only=True)
    splits: tuple[str, ...] | None = field(default=None, kw_only=True, validator=distinct_names)

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Read the list and check its files; nothing is random, so ``seed`` is not used."""
        grouped = self.columns is not None and self.columns.group is not None
        return image_environments(self, self.augment, data_dir, self.splits, by_value=True, grouped=grouped)

    def listed(self, data_dir: Path | None) -> tuple[Path, tuple[Listed, ...]]:
        """Return the path of the list, and its images by environment."""
        where = in_data_folder(self.path, data_dir)
        return where, list_file(where, self.environments, self.columns)


def list_images(source: Path) -> tuple[Listed, ...]:
    """Return the images of a folder or list, by environment."""
    is_list = source.suffix.lower() in LIST_EXTENSIONS and not source.is_dir()
    return list_file(source) if is_list or source.is_file() else list_folder(source)
