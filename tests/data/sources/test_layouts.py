"""From an unpacked folder to ENVIRONMENT/CLASS/IMAGE."""

import json
from pathlib import Path

import pytest

from fishr.data.sources import find_image_set
from fishr.data.sources.layouts import (
    Environment,
    arrange_folders,
    arrange_locations,
    arrange_splits,
    find_environments,
    read_sightings,
)
from fishr.errors import InputError

TWO = (Environment("photo", "P"), Environment("Real World", "R"))


@pytest.fixture
def folders(tmp_path: Path):
    unpacked, laid = tmp_path / "unpacked", tmp_path / "laid"
    unpacked.mkdir()
    laid.mkdir()
    return unpacked, laid


def fill(folder: Path, *files: str) -> None:
    """Files whose content is their path."""
    for file in files:
        name, _, content = file.partition("=")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content or name)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_environments_are_found_wherever_they_lie(folders):
    unpacked, laid = folders
    fill(unpacked / "0" / "kfold", "photo/dog/1.jpg=1", "Thumbs.db")
    fill(unpacked / "1", "deep/er/real_world/cat/2.jpg=2")
    fill(unpacked / "__MACOSX", "photo/dog/._1.jpg")
    assert arrange_folders(unpacked, laid, TWO) == ()
    assert files(laid) == {"photo/dog/1.jpg": "1", "Real World/cat/2.jpg": "2"}


def test_the_folder_that_lies_least_deep_is_meant(folders):
    unpacked, _ = folders
    fill(unpacked, "a/photo/photo/1.jpg", "a/RealWorld/photo/1.jpg")
    assert list(find_environments(unpacked, TWO).values()) == [unpacked / "a" / "photo", unpacked / "a" / "RealWorld"]


def test_a_missing_environment_is_named(folders):
    unpacked, laid = folders
    fill(unpacked, "photo/dog/1.jpg")
    with pytest.raises(InputError, match=r"has no folder Real World; .* give all of the data set's archives"):
        arrange_folders(unpacked, laid, TWO)
    assert files(unpacked) == {"photo/dog/1.jpg": "photo/dog/1.jpg"}


def test_two_folders_for_one_environment_are_named(folders):
    unpacked, laid = folders
    fill(unpacked, "a/photo/dog/1.jpg", "b/Photo/dog/1.jpg", "RealWorld/dog/1.jpg")
    with pytest.raises(InputError, match=r"two folders for photo: a/photo and b/Photo"):
        arrange_folders(unpacked, laid, TWO)


def test_the_splits_of_vlcs_merge(folders):
    unpacked, laid = folders
    fill(
        unpacked / "VLCS",
        "CALTECH/train/0/a.jpg=1",
        "CALTECH/crossval/0/b.jpg=2",
        "CALTECH/test/1/c.jpg=3",
        "LABELME/train/0/a.jpg=4",
        "LABELME/test/0/a.jpg=5",
        "SUN/Train/0/a.jpg=6",
        "SUN/Test/0/a.jpg=6",
        "PASCAL/full/0/a.jpg=7",
        "PASCAL/full/0/b.jpg=8",
        "PASCAL/train/0/a.jpg=7",
    )
    notes = arrange_splits(unpacked, laid, find_image_set("VLCS").environments)
    assert files(laid) == {
        "Caltech101/0/a.jpg": "1",
        "Caltech101/0/b.jpg": "2",
        "Caltech101/1/c.jpg": "3",
        "LabelMe/0/a.jpg": "4",
        "LabelMe/0/test_a.jpg": "5",
        "SUN09/0/a.jpg": "6",
        "VOC2007/0/a.jpg": "7",
        "VOC2007/0/b.jpg": "8",
    }
    assert notes == (
        "LabelMe: 1 images were renamed, another split has their name",
        "SUN09: 1 images are in two splits, one copy was kept",
    )


def test_a_rename_never_falls_on_another_image(folders):
    unpacked, laid = folders
    fill(unpacked / "photo", "train/0/test_a.jpg=1", "train/0/a.jpg=2", "test/0/a.jpg=3")
    arrange_splits(unpacked, laid, TWO[:1])
    assert files(laid / "photo" / "0") == {"a.jpg": "2", "test_a.jpg": "1", "test_test_a.jpg": "3"}


def test_environments_without_splits_stay_as_they_are(folders):
    unpacked, laid = folders
    fill(unpacked / "VLCS", "photo/dog/1.jpg=1", "photo/cat/2.jpg=2")
    assert arrange_splits(unpacked, laid, TWO[:1]) == ()
    assert files(laid) == {"photo/cat/2.jpg": "2", "photo/dog/1.jpg": "1"}


LOCATIONS = find_image_set("TerraIncognita").environments
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
def traps(tmp_path: Path):
    unpacked, laid = tmp_path / "unpacked", tmp_path / "laid"
    for folder in (unpacked / "0" / "eccv_18_all_images_sm", unpacked / "1" / "eccv_18_annotation_files", laid):
        folder.mkdir(parents=True)
    return unpacked, laid


def put(unpacked: Path, *texts: str, images: str) -> None:
    for number, text in enumerate(texts):
        (unpacked / "1" / "eccv_18_annotation_files" / f"{number}.json").write_text(text)
    for name in images:
        (unpacked / "0" / "eccv_18_all_images_sm" / f"{name}.jpg").write_text(name)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_images_go_to_their_location_and_category(traps):
    unpacked, laid = traps
    one = annotations(("a.jpg", 38, 1), ("b.jpg", "46", 0), ("c.jpg", 99, 1), ("d.jpg", 43, 2))
    two = annotations(("a.jpg", 38, 1), ("a.jpg", 38, 1), ("e.jpg", 100, 3), ("e.jpg", 100, 1), ("x/f.jpg", 43, 3))
    put(unpacked, one, two, images="abcdefg")
    assert arrange_locations(unpacked, laid, LOCATIONS) == ()
    assert contents(laid) == {
        "location_100/bird/e.jpg": "e",
        "location_100/dog/e.jpg": "e",
        "location_38/bird/a.jpg": "a",
        "location_43/dog/f.jpg": "f",
        "location_46/empty/b.jpg": "b",
    }


def test_annotated_images_that_are_not_there_are_told(traps):
    unpacked, laid = traps
    put(unpacked, annotations(("a.jpg", 38, 1), ("b.jpg", 38, 1), ("c.jpg", 38, 1)), images="b")
    assert arrange_locations(unpacked, laid, LOCATIONS) == ("2 annotated images are not in the archive, such as a.jpg",)
    assert contents(laid) == {"location_38/bird/b.jpg": "b"}


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
def test_camera_traps_that_cannot_be_laid_out(traps, texts, problem):
    unpacked, laid = traps
    put(unpacked, *texts, images="ab")
    with pytest.raises(InputError, match=problem) as caught:
        arrange_locations(unpacked, laid, LOCATIONS)
    assert "\n" not in str(caught.value)


def test_a_file_name_with_folders_stays_inside(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(annotations(("../../up.jpg", 38, 1)))
    assert read_sightings(path) == [("up.jpg", "38", "bird")]
