"""The image data sets of DomainBed: environments, classes, and where their archives are published."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from attrs import field, frozen

from fishr.data.images.folder_listing import LAYOUT
from fishr.data.sources.layouts import CATEGORIES, Environment, arrange_folders, arrange_locations, arrange_splits
from fishr.errors import InputError

_DRIVE = "https://drive.google.com/uc?id="
_DOMAINNET = "http://csr.bu.edu/ftp/visda/2019/multi-source"
_CARS = ("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe")
# LILA publishes its data sets in equal folders on the clouds of Google and Microsoft.
_TRAPS = "https://storage.googleapis.com/public-datasets-lila/caltechcameratraps"
_TRAPS_MIRROR = "https://lilawildlife.blob.core.windows.net/lila-wildlife/caltechcameratraps"
_TRAPS_FILES = ("eccv_18_all_images_sm.tar.gz", "eccv_18_annotations.tar.gz")


Relay = Callable[[Path, Path, tuple[Environment, ...]], tuple[str, ...]]
"""From (unpacked folder, empty folder, environments) to notes for people; it moves the images to the empty folder."""


@frozen
class ImageSet:
    """A data set of images FOLDER/ENVIRONMENT/CLASS/IMAGE.

    Args:
        name: Name in DomainBed and its records.
        environments: In the order of their indices.
        origin: Page of its publisher; empty: only the addresses of its archives are known.
        archives: Addresses of the files to download, by file name; empty: people have to get them themselves.
        mirrors: A second address of a file, by its name, for when the first fails.
        table: Name of a table of the same images on the Hugging Face hub, in another order; empty: none is known.
        by_hand: Instructions for a layout by hand.
        class_names: Names of the classes, if they are few.
        license: License, if it is known.
        relay: Lays out what was unpacked.

    Example:
        >>> find_image_set("pacs").folder
        'PACS'
    """

    name: str
    description: str
    folder: str
    environments: tuple[Environment, ...]
    classes: int
    origin: str = ""
    archives: Mapping[str, str] = field(factory=dict, hash=False)
    mirrors: Mapping[str, str] = field(factory=dict, hash=False)
    table: str = ""
    by_hand: str = "unpack it, and move its environments' folders there"
    class_names: tuple[str, ...] = ()
    license: str = ""
    relay: Relay = arrange_folders

    @property
    def layout(self) -> str:
        """Paths of the images below the data folder."""
        return f"{self.folder}/{LAYOUT}"


def _environments(titles: Mapping[str, str]) -> tuple[Environment, ...]:
    return tuple(Environment(folder, title) for folder, title in titles.items())


def _spawrious(size: str, level: str) -> ImageSet:
    return ImageSet(
        name=f"Spawrious{size}_{level}",
        description=f"generated dogs with a spurious background, {size}, {level}",
        folder=f"spawrious224/{size.lower()}_{level}",
        environments=_environments({name: name for name in ("Test", "SC_group_1", "SC_group_2")}),
        classes=4,
        origin="https://github.com/aengusl/spawrious",
        by_hand="its archives sort images by location; lay out each environment as a mixture of locations",
        class_names=("bulldog", "corgi", "dachshund", "labrador"),
        license="MIT",
    )


_SETS = (
    ImageSet(
        name="VLCS",
        description="photographs from four collections",
        folder="VLCS",
        environments=(
            Environment("Caltech101", "C", ("CALTECH",)),
            Environment("LabelMe", "L"),
            Environment("SUN09", "S", ("SUN",)),
            Environment("VOC2007", "V", ("VOC", "PASCAL")),
        ),
        classes=5,
        relay=arrange_splits,
        archives={"VLCS.tar.gz": f"{_DRIVE}1skwblH1_okBwxWxmRsp9_qi15hyPpxg8"},
        by_hand="merge each environment's train, crossval and test folders, class by class, so that ENVIRONMENT/CLASS "
        "has all of them",
        class_names=("bird", "car", "chair", "dog", "person"),
    ),
    ImageSet(
        name="PACS",
        description="photographs, art paintings, cartoons and sketches",
        folder="PACS",
        environments=_environments({"art_painting": "A", "cartoon": "C", "photo": "P", "sketch": "S"}),
        classes=7,
        archives={"PACS.zip": f"{_DRIVE}1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"},
        table="flwrlabs/pacs",
        class_names=("dog", "elephant", "giraffe", "guitar", "horse", "house", "person"),
    ),
    ImageSet(
        name="OfficeHome",
        description="objects of offices and homes: art, clip art, products, photographs",
        folder="office_home",
        environments=_environments({"Art": "A", "Clipart": "C", "Product": "P", "Real World": "R"}),
        classes=65,
        archives={"OfficeHome.zip": f"{_DRIVE}1uY0pj7oFsjMxRwaD3Sxy0jgel0fsYXLC"},
        table="flwrlabs/office-home",
    ),
    ImageSet(
        name="TerraIncognita",
        description="animals in camera traps at four locations",
        folder="terra_incognita",
        environments=_environments({f"location_{number}": f"L{number}" for number in (100, 38, 43, 46)}),
        classes=10,
        origin="https://lila.science/datasets/caltech-camera-traps",
        relay=arrange_locations,
        archives={name: f"{_TRAPS}/{name}" for name in _TRAPS_FILES},
        mirrors={name: f"{_TRAPS_MIRROR}/{name}" for name in _TRAPS_FILES},
        by_hand="put each image of these locations under its category in the annotations",
        class_names=CATEGORIES,
        license="Community Data License Agreement, permissive variant",
    ),
    ImageSet(
        name="DomainNet",
        description="objects as clip art, infographics, paintings, quick drawings, photographs, sketches",
        folder="domain_net",
        environments=_environments(
            {"clipart": "clip", "infograph": "info", "painting": "paint", "quickdraw": "quick"}
            | {name: name for name in ("real", "sketch")}
        ),
        classes=345,
        origin="http://ai.bu.edu/M3SDA",
        archives={
            f"{path.rpartition('/')[2]}.zip": f"{_DOMAINNET}/{path}.zip"
            for path in ("groundtruth/clipart", "infograph", "groundtruth/painting", "quickdraw", "real", "sketch")
        },
        table="wltjr1007/DomainNet",
        by_hand="unpack all six there; DomainBed leaves out a published list of duplicates, fishr only with download "
        "--duplicates FILE",
    ),
    ImageSet(
        name="SVIRO",
        description="rendered rear seats of ten cars and their passengers",
        folder="sviro",
        environments=_environments({name: name for name in _CARS}),
        classes=7,
        origin="https://sviro.kl.dfki.de",
        by_hand="take the images for classification, one folder a car",
    ),
    *(_spawrious(size, level) for size in ("O2O", "M2M") for level in ("easy", "medium", "hard")),
)
IMAGE_SETS: Mapping[str, ImageSet] = MappingProxyType({image_set.name: image_set for image_set in _SETS})
"""The image data sets that can be downloaded, by the names that DomainBed and its records use."""


def find_image_set(name: str) -> ImageSet:
    """Return the image data set of a name, in any case.

    Raises:
        InputError: There is none; the message lists the names.

    Example:
        >>> find_image_set("terraincognita").classes
        10
    """
    by_name = {known.lower(): image_set for known, image_set in IMAGE_SETS.items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    close = get_close_matches(name.lower(), by_name, 1)
    hint = f"did you mean {by_name[close[0]].name}?" if close else f"expected one of {', '.join(IMAGE_SETS)}"
    raise InputError(f"{name}: no image data set of that name; {hint}")
