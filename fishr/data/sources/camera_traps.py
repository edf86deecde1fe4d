"""Laying out images of the Caltech camera traps by location and category, from their annotations."""

import json
import shutil
from pathlib import Path
from typing import Any

from attrs import frozen

from fishr.data.sources.image_set import Environment
from fishr.errors import InputError

CATEGORIES = ("bird", "bobcat", "cat", "coyote", "dog", "empty", "opossum", "rabbit", "raccoon", "squirrel")


@frozen
class Sighting:
    """What the annotations say of one image.

    Args:
        file: its file name, without folders.
        location: of the camera.
        category: what was seen.

    Example:
        >>> Sighting("5968c0f9.jpg", "38", "bird").category
        'bird'
    """

    file: str
    location: str
    category: str


def lay_locations(unpacked: Path, laid: Path, environments: tuple[Environment, ...]) -> tuple[str, ...]:
    """Move each image to location_N/CATEGORY, for the locations of the environments and ten categories.

    An image with animals of two categories lies under both.

    Args:
        unpacked: has the images and, in .json files, their annotations; images are moved away.
        laid: an empty folder on the same disk.
        environments: called location_N.

    Returns:
        How many annotated images were not there, if any.

    Raises:
        InputError: no annotations, annotations of another form, or none of their images.

    Example:
        >>> import tempfile
        >>> notes = {
        ...     "images": [{"id": "a", "file_name": "a.jpg", "location": 38}],
        ...     "categories": [{"id": 11, "name": "bird"}],
        ...     "annotations": [{"image_id": "a", "category_id": 11}],
        ... }
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     unpacked, laid = Path(folder, "unpacked"), Path(folder, "laid")
        ...     unpacked.mkdir()
        ...     laid.mkdir()
        ...     (unpacked / "a.jpg").touch()
        ...     (unpacked / "train.json").write_text(json.dumps(notes)) > 0
        ...     lay_locations(unpacked, laid, (Environment("location_38", "L38"),))
        ...     (laid / "location_38" / "bird" / "a.jpg").exists()
        True
        ()
        True

    Source:
        Beery, Van Horn and Perona, Recognition in terra incognita, ECCV 2018; four locations and ten categories as
        Gulrajani and Lopez-Paz, ICLR 2021, have it.
    """
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    annotations = sorted(path for path in files if path.suffix == ".json" and not path.name.startswith("."))
    if not annotations:
        raise InputError("what was unpacked has no .json file of annotations; give their archive too")
    sightings = {sighting for path in annotations for sighting in read_sightings(path)}
    places = dict[str, list[Path]]()
    for sighting in sorted(sightings, key=lambda each: (each.file, each.category)):
        folder = f"location_{sighting.location}"
        if sighting.category in CATEGORIES and any(folder == each.folder for each in environments):
            places.setdefault(sighting.file, []).append(laid / folder / sighting.category / sighting.file)
    images = {path.name: path for path in files}
    missing = [file for file in places if file not in images]
    if len(missing) == len(places):
        raise InputError("what was unpacked has none of the annotated images; give the archives of both")
    for file, targets in places.items():
        if file in images:
            _put(images[file], targets)
    return (f"{len(missing)} annotated images are not in the archive, such as {missing[0]}",) if missing else ()


def read_sightings(path: Path) -> list[Sighting]:
    """The sightings of a file in the COCO camera traps format.

    Args:
        path: of a .json file with ``images``, ``categories`` and ``annotations``.

    Raises:
        InputError: the file has another form.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "a.json").write_text("[]")
        ...     read_sightings(Path(folder, "a.json"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: a.json: no annotations in the COCO camera traps format (...); get the archive ...
    """
    try:
        tree: Any = json.loads(path.read_bytes())
        names = {category["id"]: str(category["name"]) for category in tree["categories"]}
        images = {image["id"]: (Path(image["file_name"]).name, str(image["location"])) for image in tree["images"]}
        return [
            Sighting(*images[annotation["image_id"]], names[annotation["category_id"]])
            for annotation in tree["annotations"]
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(
            f"{path.name}: no annotations in the COCO camera traps format ({reason}); "
            "get the archive from its publisher"
        ) from None


def _put(image: Path, targets: list[Path]) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
    for target in targets[1:]:
        shutil.copyfile(image, target)
    image.rename(targets[0])
