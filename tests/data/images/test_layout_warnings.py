"""Layouts that give other classes or images than were meant: taken rightly, refused or doubted, never silently."""

import os
import shutil
import unicodedata
import warnings

import pytest

from fishr.data.images import ImageFolders, ImageList, cache_images
from fishr.data.images.folder_listing import list_folder
from fishr.data.images.layout_warnings import layout_warnings
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.sources import verify_images
from fishr.errors import InputError

ENVIRONMENTS, CLASSES = ("north", "south", "west"), ("ill", "well")


def _make(root, draw, environments=ENVIRONMENTS, classes=CLASSES):
    for number, name in enumerate(f"{one}/{other}" for one in environments for other in classes):
        for image in range(2):
            draw(root / name / f"{image}.png", seed=2 * number + image, width=8, height=8)
    return root


@pytest.fixture
def wards(tmp_path, draw):
    """Three environments of two classes, two images each."""
    return _make(tmp_path / "wards", draw)


def _classes(root):
    return [each.classes for each in list_folder(root)]


def _refusal(root):
    """The one line by which training, caching and verifying refuse a folder alike."""
    said = set()
    for use in (
        lambda: ImageFolders(str(root), size=8)(0, None),
        lambda: cache_images(root, root.parent / "wards.h5", Preprocessing(8), workers=1),
        lambda: verify_images(root),
    ):
        with pytest.raises(InputError) as caught:
            use()
        said.add(str(caught.value))
    (line,) = said
    assert "\n" not in line
    return line


def _doubts(root):
    """What training and caching warn of, and verifying notes."""
    doubts = layout_warnings(root, list_folder(root))
    for use in (
        lambda: ImageFolders(str(root), size=8)(0, None),
        lambda: cache_images(root, root.parent / "wards.h5", Preprocessing(8), workers=1),
    ):
        with pytest.warns(UserWarning, match=str(root)) as caught:
            use()
        assert [str(each.message) for each in caught] == [
            f"{root}: {doubt}; see `fishr data verify {root}`" for doubt in doubts
        ]
    assert verify_images(root).notes[: len(doubts)] == doubts
    return doubts


def test_a_usual_layout_has_no_doubts(wards):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageFolders("wards", size=8)(0, wards.parent)
    assert layout_warnings(wards, list_folder(wards)) == ()


def test_one_class_in_both_forms_of_unicode(wards):
    for environment, form in (("north", "NFC"), ("south", "NFD"), ("west", "NFC")):
        (wards / environment / "ill").rename(wards / environment / unicodedata.normalize(form, "malad\u00e9"))
    assert set(_classes(wards)) == {("malad\u00e9",) * 2 + ("well",) * 2}
    assert ImageFolders("wards", size=8)(0, wards.parent).domains[1].inputs.read([0]).shape == (1, 3, 8, 8)
    lines = [f"{each.name},{group},{name}" for each in list_folder(wards) for name, group in _named(each)]
    (wards / "all.csv").write_text("\n".join(["environment,class,path", *lines]), encoding="utf-8")
    assert ImageList("all.csv", size=8)(0, wards).classes == 2


def _named(listed):
    """Each image with its class as the folder has it."""
    return [(name, name.split("/")[1]) for name in listed.images.names]


def test_environments_are_found_in_both_forms_of_unicode(wards):
    (wards / "north").rename(wards / unicodedata.normalize("NFD", "caf\u00e9"))
    for form in ("NFC", "NFD"):
        wanted = (unicodedata.normalize(form, "caf\u00e9"), "south")
        made = ImageFolders("wards", size=8, environments=wanted)(0, wards.parent)
        assert [domain.name for domain in made.domains] == ["caf\u00e9", "south"]
    (wards / "west").rename(wards / "caf\u00e9")
    assert _refusal(wards) == (
        f"{wards}: the names of the folders 'cafe\\u0301' and 'caf\\xe9' look alike; rename one, or move its images"
    )


def test_a_class_spelled_in_two_ways(wards):
    (wards / "south" / "ill").rename(wards / "south" / "Ill")
    assert _refusal(wards) == (f"{wards}: the class is 'ill' in north but 'Ill' in south; give it one name everywhere")
    (wards / "north" / "Ill").mkdir()
    shutil.copy(wards / "north" / "ill" / "0.png", wards / "north" / "Ill")
    assert ImageFolders("wards", size=8)(0, wards.parent).classes == 3


def test_a_list_spells_a_class_in_two_ways(wards):
    lines = "n,ill,north/ill/0.png\nn,well,north/well/0.png\ns,ILL,south/ill/0.png\n"
    (wards / "a.csv").write_text("environment,class,path\n" + lines)
    with pytest.raises(InputError, match=r"a\.csv: the class is 'ill' in n but 'ILL' in s"):
        ImageList("a.csv", size=8)(0, wards)


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".cache", "#recycle", "lost+found", "$RECYCLE.BIN"])
def test_what_systems_leave_is_no_environment_and_no_class(wards, name):
    before = _classes(wards)
    for place in (wards, wards / "north", wards / "north" / "ill"):
        (place / name).mkdir()
        shutil.copy(wards / "north" / "ill" / "0.png", place / name / "0.png")
    assert _classes(wards) == before
    assert layout_warnings(wards, list_folder(wards)) == ()


def test_a_level_too_many(tmp_path, draw):
    for split in ("train", "val"):
        _make(tmp_path / "wards" / split, draw)
    assert _refusal(tmp_path / "wards") == (
        f"{tmp_path / 'wards'}: its images are one folder deeper than ENVIRONMENT/CLASS/IMAGE, as "
        "train/north/ill/0.png, and each class has ill, well; arrange images as ENVIRONMENT/CLASS/IMAGE, or name the "
        "folder that has it"
    )
    (tmp_path / "wards" / "val").rename(tmp_path / "wards" / "side")
    (doubt,) = _doubts(tmp_path / "wards")
    assert doubt.startswith("its images are one folder deeper than ENVIRONMENT/CLASS/IMAGE, as side/north/ill/0.png")


def test_a_folder_between_environment_and_classes(tmp_path, draw):
    for name in ("amazon", "dslr"):
        _make(tmp_path / "office" / name, draw, environments=("images",), classes=("bike", "desk"))
    assert "as amazon/images/bike/0.png, and each class has bike, desk" in _refusal(tmp_path / "office")


def test_folders_of_patients_are_no_doubt(wards):
    for number, place in enumerate(path for path in wards.glob("*/*")):
        (place / f"patient {number}").mkdir()
        for image in place.glob("*.png"):
            image.rename(place / f"patient {number}" / image.name)
    assert layout_warnings(wards, list_folder(wards)) == ()


def test_splits_as_environments(tmp_path, draw):
    _make(tmp_path / "wards", draw, environments=("train", "test"))
    assert _doubts(tmp_path / "wards") == ("its environments are called test, train, as the splits of a data set are",)


def test_a_class_in_another_format(wards):
    for path in (wards / "north" / "ill").iterdir():
        path.rename(path.with_suffix(".GIF"))
    assert _refusal(wards).startswith(
        f"{wards / 'north' / 'ill'}: none of its files is read (2 .gif), but the class has images in another "
        "environment; convert them to one of .jpg, "
    )


def test_images_that_are_passed_over(wards, draw):
    draw(wards / "north" / "ill" / "a.gif")
    draw(wards / "north" / "beside.png")
    for name in ("a.xml", "b.xml", "c"):
        (wards / "south" / "labels").mkdir(exist_ok=True)
        (wards / "south" / "labels" / name).write_text("x")
    (wards / "west" / "ill" / "note.txt").write_text("x")
    assert _doubts(wards) == (
        "south/labels has no image that is read, but 1 without a suffix, 2 .xml",
        "images are skipped, of other formats or outside the class folders: 1 .gif, 1 .png",
    )
    assert [each.passed_over for each in verify_images(wards).contents] == [2, 3, 1]


def _link_to_parent(wards):
    (wards / "north" / "ill" / "loop").symlink_to("..")


def _links_to_the_root(wards):
    for name in ("a", "b"):
        (wards / "north" / "ill" / name).symlink_to(wards)


def _link_to_another_class(wards):
    (wards / "north" / "ill" / "more").symlink_to(wards / "north" / "well")


def _environment_that_is_another(wards):
    (wards / "east").symlink_to("south")


def _environment_that_is_the_disk(wards):
    (wards / "east").symlink_to("/")


def _class_around_everything(wards):
    (wards / "north" / "zero").symlink_to("../..")


@pytest.mark.parametrize(
    "link",
    [
        _link_to_parent,
        _links_to_the_root,
        _link_to_another_class,
        _environment_that_is_another,
        _environment_that_is_the_disk,
        _class_around_everything,
    ],
)
def test_links_do_not_multiply_images(wards, link):
    link(wards)
    assert "leads to the same images as" in _refusal(wards)


def test_a_link_to_itself_is_no_folder(wards):
    (wards / "north" / "ill" / "self").symlink_to("self")
    assert len(list_folder(wards)[0].classes) == 4
    (wards / "north" / "self").symlink_to("self")
    assert "self: cannot be read (Too many levels of symbolic links)" in _refusal(wards)


def test_links_to_folders_and_files_elsewhere_are_followed(wards, tmp_path):
    before = _classes(wards)
    (wards / "north" / "ill").rename(tmp_path / "elsewhere")
    (wards / "north" / "ill").symlink_to(tmp_path / "elsewhere")
    (wards / "south" / "ill" / "0.png").rename(tmp_path / "0.png")
    (wards / "south" / "ill" / "0.png").symlink_to(tmp_path / "0.png")
    assert _classes(wards) == before
    ImageFolders("wards", size=8)(0, tmp_path)


@pytest.fixture
def latin(wards):
    """A file whose name is no UTF-8, as an archive of another system leaves it."""
    old = wards / "north" / "ill" / "0.png"
    new = os.fsencode(old.parent) + b"/caf\xe9.png"
    try:
        os.rename(old, new)  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    return os.fsdecode(new)


def test_a_file_whose_name_is_no_utf8(wards, latin):
    made = ImageFolders("wards", size=8, augment_evaluation=True)(0, wards.parent)
    assert cache_images(wards, wards.parent / "wards.h5", Preprocessing(8), workers=1)
    cached = ImageFolders("wards", size=8, augment_evaluation=True, cache="wards.h5")(0, wards.parent)
    assert cached.domains[0].inputs.images.names[1] == "north/ill/caf\\udce9.png"
    assert made.domains[0].inputs.read([1]).equal(cached.domains[0].inputs.read([1]))
    assert verify_images(wards).unreadable == ()


@pytest.mark.parametrize("level", ["north/ill", "north"])
def test_a_class_or_environment_whose_name_is_no_utf8_is_refused(wards, latin, level):
    place = wards / level
    os.rename(place, os.fsencode(place.parent) + b"/\xe9")  # noqa: PTH104
    assert _refusal(wards) == f"{place.parent}: got the name \\udce9, which is not UTF-8; rename it"


@pytest.mark.parametrize(("text", "got"), [("a\\u0000.png", "a\\\\x00.png"), ("\\ud800.png", "\\\\ud800.png")])
def test_a_list_with_what_is_no_name(wards, text, got):
    entry = f'{{"environment": "n", "class": "ill", "path": "{text}"}}'
    (wards / "a.jsonl").write_text(entry)
    with pytest.raises(InputError, match=f"line 1: got '{got}' as path, expected text that can be the name of a file"):
        ImageList("a.jsonl", size=8)(0, wards)
    (wards / "a.jsonl").write_text(entry.replace("ill", "\\ud800").replace(text, "b.png"))
    with pytest.raises(InputError, match=r"line 1: got the name \\ud800, which is not UTF-8"):
        ImageList("a.jsonl", size=8)(0, wards)
