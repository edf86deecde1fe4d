"""Images in a table of Hugging Face's format as environments."""

from pathlib import Path

from attrs import Factory, field, frozen
from attrs.validators import optional

from fishr.checks import distinct_names, whole
from fishr.data.environments import Environments
from fishr.data.images.augmentation import Augmentation, DomainBedAugmentation, augmentation_of
from fishr.data.images.image_environments import check_size, image_environments, input_size
from fishr.data.images.image_inputs import Prepare
from fishr.data.images.image_tables import TableColumns, list_table, table_place
from fishr.data.images.listed_images import Listed
from fishr.data.images.preprocessing import Preprocessing


@frozen
class HuggingFaceImages:
    """Images in a table of Parquet or Arrow files, as on the Hugging Face hub, decoded when a batch needs them.

    It needs the extra ``hf`` and never the network: ``fishr data download hf:OWNER/NAME`` downloads a data set of the
    hub. An image's bytes are decoded as those of a file, so that inputs are equal to the bit. Parquet files are
    converted once, to Arrow files in the cache of the package ``datasets``.

    Args:
        path: A folder or file, relative to ``data_dir``, or to the folder "data" if that is None; or the hub's name
            OWNER/NAME of a data set that was downloaded to ``huggingface/OWNER/NAME`` there.
        image: Column of the images.
        label: Column of the classes: names, whole numbers, or a feature that names them. Classes are sorted by name,
            whole numbers by value.
        domain: Column of the environments, likewise; None: each split is an environment.
        splits: Take only the images of these splits; the classes are those of all. None: all.
        config: Configuration of a data set that has several.
        size, augment, augment_evaluation, environments, samples, cache, prepare, preprocessing: As in
            :class:`ImageFolders`.

    Raises:
        InputError: A setting is out of range. When called: the package is not installed, nothing is there, a column or
            split is missing, a row has no image or class, or the cache was resized in another way.

    Example:
        >>> HuggingFaceImages("flwrlabs/pacs", domain="domain").label
        'label'
    """

    path: str
    image: str = "image"
    label: str = "label"
    domain: str | None = None
    splits: tuple[str, ...] | None = field(default=None, validator=distinct_names)
    config: str | None = None
    # Before the size, which is taken from it.
    preprocessing: Preprocessing | None = None
    size: int = field(default=Factory(input_size, takes_self=True), validator=check_size)
    augment: Augmentation = field(default=DomainBedAugmentation(), converter=augmentation_of)
    augment_evaluation: bool = False
    environments: tuple[str, ...] | None = field(default=None, validator=distinct_names)
    samples: int | None = field(default=None, validator=optional(whole(1)))
    cache: str | None = None
    prepare: Prepare = "reader"

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Open the table and check its columns; nothing is random, so ``seed`` is not used."""
        return image_environments(self, self.augment, data_dir, self.splits, by_value=True)

    def listed(self, data_dir: Path | None) -> tuple[Path, tuple[Listed, ...]]:
        """Return the path of the table, and its images by environment."""
        where = table_place(self.path, data_dir)
        columns = TableColumns(self.image, self.label, self.domain)
        return where, list_table(where, columns, self.environments, self.config, self.splits)
