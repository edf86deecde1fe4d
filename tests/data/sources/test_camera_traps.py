"""TerraIncognita, from images and their annotations to locations and categories."""

import json
from pathlib import Path

import pytest

from fishr.data.sources import find_image_set
from fishr.data.sources.camera_traps import Sighting, lay_locations, read_sightings
from fishr.errors import InputError

ENVIRONMENTS = find_image_set("TerraIncognita").environments
NAMES = {0: "empty", 1: "bird", 2: "car", 3: "dog"}


def annotations(*rows: tuple[str, object, int]) -> str:
    """Rows (file, location, category)."""
    return json.dumps(
        {
            "info": {"version": "1"},
            "images": [{"id": f"id-{file}", "file_name": file, "location": place} for file, place, _ in rows],
            "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
            "annotations": [
                {"id": str(row), "image_id": f"id-{rows[row][0]}", "category_id": rows[row][2]}
                for row in range(len(rows))
            ],
        }
    )


@pytest.fixture
def folders(tmp_path: Path):
    unpacked, laid = tmp_path / "unpacked", tmp_path / "laid"
    for folder in (unpacked / "0" / "eccv_18_all_images_sm", unpacked / "1" / "eccv_18_annotation_files", laid):
        folder.mkdir(parents=True)
    return unpacked, laid


def put(unpacked: Path, *texts: str, images: str) -> None:
    for number, text in enumerate(texts):
        (unpacked / "1" / "eccv_18_annotation_files" / f"{number}.json").write_text(text)
    for name in images:
        (unpacked / "0" / "eccv_18_all_images_sm" / f"{name}.jpg").write_text(name)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_images_go_to_their_location_and_category(folders):
    unpacked, laid = folders
    one = annotations(("a.jpg", 38, 1), ("b.jpg", "46", 0), ("c.jpg", 99, 1), ("d.jpg", 43, 2))
    two = annotations(("a.jpg", 38, 1), ("a.jpg", 38, 1), ("e.jpg", 100, 3), ("e.jpg", 100, 1), ("x/f.jpg", 43, 3))
    put(unpacked, one, two, images="abcdefg")
    assert lay_locations(unpacked, laid, ENVIRONMENTS) == ()
    assert files(laid) == {
        "location_100/bird/e.jpg": "e",
        "location_100/dog/e.jpg": "e",
        "location_38/bird/a.jpg": "a",
        "location_43/dog/f.jpg": "f",
        "location_46/empty/b.jpg": "b",
    }


def test_annotated_images_that_are_not_there_are_told(folders):
    unpacked, laid = folders
    put(unpacked, annotations(("a.jpg", 38, 1), ("b.jpg", 38, 1), ("c.jpg", 38, 1)), images="b")
    assert lay_locations(unpacked, laid, ENVIRONMENTS) == ("2 annotated images are not in the archive, such as a.jpg",)
    assert files(laid) == {"location_38/bird/b.jpg": "b"}


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ((), "no .json file of annotations"),
        (("[]",), "0.json: no annotations in the COCO camera traps format"),
        (("{",), "0.json: no annotations in the COCO camera traps format .JSONDecodeError"),
        (("[" * 100_000,), "0.json: no annotations in the COCO camera traps format .RecursionError"),
        ((annotations(("z.jpg", 38, 1)),), "none of the annotated images"),
    ],
)
def test_what_cannot_be_laid_out(folders, texts, problem):
    unpacked, laid = folders
    put(unpacked, *texts, images="ab")
    with pytest.raises(InputError, match=problem) as caught:
        lay_locations(unpacked, laid, ENVIRONMENTS)
    assert "\n" not in str(caught.value)


def test_a_file_name_with_folders_stays_inside(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(annotations(("../../up.jpg", 38, 1)))
    assert read_sightings(path) == [Sighting("up.jpg", "38", "bird")]
