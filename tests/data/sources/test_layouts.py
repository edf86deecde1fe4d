"""From an unpacked folder to ENVIRONMENT/CLASS/IMAGE."""

from pathlib import Path

import pytest

from fishr.data.sources import find_image_set
from fishr.data.sources.image_set import Environment
from fishr.data.sources.layouts import find_environments, lay_folders, lay_splits
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
    assert lay_folders(unpacked, laid, TWO) == ()
    assert files(laid) == {"photo/dog/1.jpg": "1", "Real World/cat/2.jpg": "2"}


def test_the_folder_that_lies_least_deep_is_meant(folders):
    unpacked, _ = folders
    fill(unpacked, "a/photo/photo/1.jpg", "a/RealWorld/photo/1.jpg")
    assert list(find_environments(unpacked, TWO).values()) == [unpacked / "a" / "photo", unpacked / "a" / "RealWorld"]


def test_a_missing_environment_is_named(folders):
    unpacked, laid = folders
    fill(unpacked, "photo/dog/1.jpg")
    with pytest.raises(InputError, match=r"has no folder Real World; .* give all of the data set's archives"):
        lay_folders(unpacked, laid, TWO)
    assert files(unpacked) == {"photo/dog/1.jpg": "photo/dog/1.jpg"}


def test_two_folders_for_one_environment_are_named(folders):
    unpacked, laid = folders
    fill(unpacked, "a/photo/dog/1.jpg", "b/Photo/dog/1.jpg", "RealWorld/dog/1.jpg")
    with pytest.raises(InputError, match=r"two folders for photo: a/photo and b/Photo"):
        lay_folders(unpacked, laid, TWO)


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
    notes = lay_splits(unpacked, laid, find_image_set("VLCS").environments)
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
        "LabelMe: 1 images of a name that another split has were renamed",
        "SUN09: 1 images lie in two splits, one copy was taken",
    )


def test_a_rename_never_falls_on_another_image(folders):
    unpacked, laid = folders
    fill(unpacked / "photo", "train/0/test_a.jpg=1", "train/0/a.jpg=2", "test/0/a.jpg=3")
    lay_splits(unpacked, laid, TWO[:1])
    assert files(laid / "photo" / "0") == {"a.jpg": "2", "test_a.jpg": "1", "test_test_a.jpg": "3"}


def test_environments_without_splits_stay_as_they_are(folders):
    unpacked, laid = folders
    fill(unpacked / "VLCS", "photo/dog/1.jpg=1", "photo/cat/2.jpg=2")
    assert lay_splits(unpacked, laid, TWO[:1]) == ()
    assert files(laid) == {"photo/cat/2.jpg": "2", "photo/dog/1.jpg": "1"}
