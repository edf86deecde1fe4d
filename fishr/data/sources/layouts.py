"""Layouts of image data sets: move what an archive held to ENVIRONMENT/CLASS/IMAGE."""

import filecmp
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from fishr.data.images.folder_listing import is_meant
from fishr.errors import InputError, one_line

SPLITS = ("train", "crossval", "test")
WHOLE = "full"
CATEGORIES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")


@frozen
class Environment:
    """One environment of an image data set.

    Args:
        title: Name in tables.
        also: Other names of the folder in published copies.

    Example:
        >>> Environment("SUN09", "S", also=("SUN",)).is_called("sun")
        True
    """

    folder: str
    title: str
    also: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Return whether a folder has one of the names; case, blanks and underscores do not count."""
        return _plain(name) in map(_plain, (self.folder, *self.also))


def is_arranged(folder: Path, environments: Sequence[Environment]) -> bool:
    """Return whether a folder has one folder for each environment."""
    names = [path.name for path in folders_of(folder)]
    return all(any(environment.is_called(name) for name in names) for environment in environments)


# Each of the functions arrange_* moves images from ``unpacked`` to ``arranged``, an empty folder on the same disk, and
# returns notes for people.


def arrange_folders(unpacked: Path, arranged: Path, environments: tuple[Environment, ...]) -> tuple[str, ...]:
    """Move the folder of each environment, at whatever depth it is."""
    for environment, folder in find_environments(unpacked, environments).items():
        folder.rename(arranged / environment.folder)
    return ()


def arrange_splits(unpacked: Path, arranged: Path, environments: tuple[Environment, ...]) -> tuple[str, ...]:
    """Merge the train, crossval and test folders of each environment, class by class."""
    # Of two images of one name and class, the second is dropped if the bytes agree, else its split precedes its name.
    notes = list[str]()
    for environment, folder in find_environments(unpacked, environments).items():
        target = arranged / environment.folder
        parts = {part.name.lower(): part for part in folders_of(folder)}
        splits = [parts[name] for name in SPLITS if name in parts]
        if not splits or WHOLE in parts:
            parts.get(WHOLE, folder).rename(target)
            continue
        twice, renamed = 0, 0
        images = ((split, image) for split in splits for class_ in folders_of(split) for image in files_of(class_))
        for split, image in images:
            place = target / image.parent.name / image.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists() and filecmp.cmp(place, image, shallow=False):
                twice += 1
                continue
            renamed += place.exists()
            while place.exists():
                place = place.with_name(f"{split.name}_{place.name}")
            image.rename(place)
        if twice:
            notes.append(f"{environment.folder}: {twice} images are in two splits, one copy was kept")
        if renamed:
            notes.append(f"{environment.folder}: {renamed} images were renamed, another split has their name")
    return tuple(notes)


def arrange_locations(unpacked: Path, arranged: Path, environments: tuple[Environment, ...]) -> tuple[str, ...]:
    """Move Caltech camera traps' images to location_N/CATEGORY, by their annotations in .json files."""
    # An image with animals of two categories goes to both. Source: Beery et al., Recognition in terra incognita, ECCV
    # 2018; the locations and categories are those of Gulrajani and Lopez-Paz, ICLR 2021.
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    annotations = sorted(path for path in files if path.suffix == ".json" and not path.name.startswith("."))
    if not annotations:
        raise InputError("what was unpacked has no .json file of annotations; give their archive too")
    places = dict[str, list[Path]]()
    folders = {environment.folder for environment in environments}
    for file, location, category in sorted({sighting for path in annotations for sighting in read_sightings(path)}):
        folder = f"location_{location}"
        if category in CATEGORIES and folder in folders:
            places.setdefault(file, []).append(arranged / folder / category / file)
    images = {path.name: path for path in files}
    missing = [file for file in places if file not in images]
    if len(missing) == len(places):
        raise InputError("what was unpacked has none of the annotated images; give the archives of both")
    for file, targets in places.items():
        if file in images:
            for target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
            for target in targets[1:]:
                shutil.copyfile(images[file], target)
            images[file].rename(targets[0])
    return (f"{len(missing)} annotated images are not in the archive, such as {missing[0]}",) if missing else ()


def read_sightings(path: Path) -> list[tuple[str, str, str]]:
    """Return file name, location and category of each annotation of a file in the COCO camera traps format."""
    try:
        tree: Any = json.loads(path.read_bytes())
        names = {category["id"]: str(category["name"]) for category in tree["categories"]}
        images = {image["id"]: (Path(image["file_name"]).name, str(image["location"])) for image in tree["images"]}
        return [(*images[each["image_id"]], names[each["category_id"]]) for each in tree["annotations"]]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problem = f"{type(error).__name__}: {one_line(str(error))}"
        raise InputError(
            f"{path.name}: no annotations in the COCO camera traps format ({problem}); get it from its publisher"
        ) from None


def find_environments(unpacked: Path, environments: tuple[Environment, ...]) -> dict[Environment, Path]:
    """Return the folder of each environment, the least deep one; two equally deep ones are refused."""
    found, folders = dict[Environment, Path](), list(_by_depth(unpacked))
    for environment in environments:
        named = [folder for folder in folders if environment.is_called(folder.name)]
        if len(named) > 1 and len(named[0].parts) == len(named[1].parts):
            raise InputError(
                f"what was unpacked has two folders for {environment.folder}: "
                f"{named[0].relative_to(unpacked)} and {named[1].relative_to(unpacked)}; expected one"
            )
        if named:
            found[environment] = named[0]
    missing = [environment.folder for environment in environments if environment not in found]
    if missing:
        raise InputError(
            f"what was unpacked has no folder {', '.join(missing)}; expected one for each environment, "
            "so give all of the data set's archives"
        )
    return found


def folders_of(folder: Path) -> list[Path]:
    """Return the folders in a folder by name, without those that operating systems add."""
    return [path for path in _entries(folder) if path.is_dir()]


def files_of(folder: Path) -> list[Path]:
    """Return the files in a folder by name, without those that operating systems add."""
    return [path for path in _entries(folder) if path.is_file()]


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_meant(path.name)) if folder.is_dir() else []


def _by_depth(folder: Path) -> Iterator[Path]:
    layer = folders_of(folder)
    while layer:
        yield from layer
        layer = [inner for outer in layer for inner in folders_of(outer)]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
