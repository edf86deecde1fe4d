"""Every image decoded, every folder compared with what is expected."""

from pathlib import Path

import attrs
import pytest
from PIL import Image

from fishr.data.sources import find_image_set, verify_images
from fishr.data.sources.verifying import Contents, check_contents, contents_of
from fishr.errors import InputError

PACS = attrs.evolve(find_image_set("PACS"), classes=2)
NAMES = [environment.folder for environment in PACS.environments]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four environments, two classes, three images each."""
    for name in NAMES:
        for class_ in ("cat", "dog"):
            (tmp_path / "PACS" / name / class_).mkdir(parents=True)
            for number in range(3):
                picture = Image.effect_noise((16, 16), 50).convert("RGB")
                picture.save(tmp_path / "PACS" / name / class_ / f"{number}.jpg")
    return tmp_path / "PACS"


def test_whole_images(folder: Path):
    told = []
    verified = verify_images(folder, PACS, lambda *what: told.append(what))
    assert verified.contents == tuple(Contents(name, {"cat": 3, "dog": 3}) for name in NAMES)
    assert (verified.images, verified.unreadable, verified.notes) == (24, (), ())
    assert told[0] == (0, 24)
    assert told[-1] == (24, 24)


def test_images_that_cannot_be_read_are_listed_in_order(folder: Path):
    cut, empty, text = folder / "cartoon/dog/1.jpg", folder / "photo/cat/0.jpg", folder / "sketch/dog/2.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])
    empty.write_bytes(b"")
    text.write_text("<html>")
    found = verify_images(folder).unreadable
    assert [each.path for each in found] == [cut, empty, text]
    assert all(each.reason for each in found)


def test_damage_inside_is_found(folder: Path):
    path = folder / "photo" / "cat" / "0.png"
    Image.effect_noise((64, 64), 50).save(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)
    assert [each.path for each in verify_images(folder).unreadable] == [path]


def test_a_list_of_images(folder: Path):
    listed = folder / "mine.csv"
    listed.write_text("environment,class,path\nnorth,cat,photo/cat/0.jpg\nsouth,dog,photo/dog/none.jpg\n")
    verified = verify_images(listed)
    assert verified.contents == (Contents("north", {"cat": 1}), Contents("south", {"dog": 1}))
    assert [each.path for each in verified.unreadable] == [folder / "photo/dog/none.jpg"]
    assert verified.notes == ("north has no image of dog", "south has no image of cat")


def test_another_layout_is_refused_before_anything_is_decoded(folder: Path):
    (folder / "photo").rename(folder / "fotos")
    (folder / "sketch" / "bird").mkdir()
    (folder / "sketch" / "bird" / "1.jpg").write_text("no image")
    with pytest.raises(InputError) as caught:
        verify_images(folder, PACS)
    assert str(caught.value) == (
        f"{folder}: not PACS, photo is missing; fotos is no environment; 3 classes, expected 2; "
        "see fishr data info PACS"
    )


def test_problems_of_what_is_right():
    there = [Contents(name.upper(), {"cat": 1, "dog": 1}) for name in NAMES]
    check_contents(there, PACS, "PACS")


def test_contents_of_real_images():
    beside = Path(__file__).resolve().parents[4] / "shared" / "data" / "PACS-mini"
    if not beside.is_dir():
        pytest.skip(f"no {beside.name} beside the project")
    from fishr.data.images.folder_listing import list_folder

    contents = contents_of(list_folder(beside))
    check_contents(contents, find_image_set("PACS"), "PACS")
    assert {count for each in contents for count in each.classes.values()} == {24}
