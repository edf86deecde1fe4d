"""Against torchvision's ImageFolder, and layouts that are none."""

import os
import shutil

import pytest
import torch
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

from fishr.data.environments import HeldOut, seed_hash, split_indices
from fishr.data.images import ImageFolders, NoAugmentation
from fishr.data.images.folder_listing import list_folder
from fishr.errors import InputError


def test_each_environment_is_torchvisions_folder(folder, draw):
    # Inside a class folders are walked in the order of their paths, and case sorts as bytes do.
    for inner in ("Zoo/1.webp", "a b/c/2.pgm", "a/3.ppm", "a-b/4.TIFF", "B.tif"):
        draw(folder / "art" / "cat" / inner)
    environments = ImageFolders("animals", size=16)(seed=0, data_dir=folder.parent)
    assert [domain.name for domain in environments.domains] == ["art", "photo", "sketch"]
    assert environments.classes == 3
    names = ("cat", "dog", "owl")
    for listed, domain in zip(list_folder(folder), environments.domains, strict=True):
        theirs = ImageFolder(str(folder / domain.name))
        assert [str(folder / name) for name in listed.images.names] == [path for path, _ in theirs.samples]
        expected = [names.index(theirs.classes[label]) for _, label in theirs.samples]
        assert domain.labels.tolist() == expected
        assert domain.labels.dtype == torch.int64
        assert domain.inputs.shape == (len(expected), 3, 16, 16)


def test_what_systems_leave_is_passed_over(folder, draw):
    before = [each.images.names for each in list_folder(folder)]
    for junk in ("art/cat/Thumbs.db", "art/cat/notes.txt", "art/.DS_Store", "readme.md"):
        (folder / junk).write_bytes(b"x")
    for junk in ("art/cat/._0.jpg", "art/cat/.hidden/1.jpg", "art/.ipynb_checkpoints/1.jpg", "__MACOSX/art/cat/1.jpg"):
        draw(folder / junk)
    draw(folder / ".cache" / "cat" / "1.jpg")
    draw(folder / "art" / "cat" / "__MACOSX" / "1.jpg")
    (folder / "art" / "empty").mkdir()
    assert [each.images.names for each in list_folder(folder)] == before
    assert ImageFolders("animals", size=8)(seed=0, data_dir=folder.parent).classes == 3


def test_links_to_folders_are_followed(folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("art", "photo"):
        (linked / name).symlink_to(folder / name)
    assert [each.images.names for each in list_folder(linked)] == [
        each.images.names for each in list_folder(folder)[:2]
    ]


def test_the_seed_of_a_run_changes_nothing(folder):
    one, other = (ImageFolders("animals", size=8, samples=5)(seed, folder.parent) for seed in (0, 1))
    for a, b in zip(one.domains, other.domains, strict=True):
        assert a.inputs.rows == b.inputs.rows
        assert torch.equal(a.labels, b.labels)


def test_samples_and_environments(folder):
    whole = ImageFolders("animals", size=8)(0, folder.parent)
    some = ImageFolders("animals", size=8, samples=4, environments=("sketch", "art"))(0, folder.parent)
    assert [domain.name for domain in some.domains] == ["sketch", "art"]
    for domain, of in zip(some.domains, (whole.domains[2], whole.domains[0]), strict=True):
        rows = list(domain.inputs.rows)
        assert len(rows) == len(domain.labels) == 4
        assert torch.equal(domain.labels, of.labels[rows])
        assert torch.equal(domain.inputs.read(range(4)), of.inputs.read(rows))
        assert set(domain.labels.tolist()) == set(of.labels.tolist())


def test_classes_are_those_of_the_environments_taken(folder):
    only = ImageFolders("animals", size=8, environments=("photo",))(0, folder.parent)
    assert only.classes == 2
    assert sorted(set(only.domains[0].labels.tolist())) == [0, 1]


def test_options_reach_the_pictures(folder):
    made = ImageFolders("animals", size=9, augment=False, augment_evaluation=True)(0, folder.parent).domains[0].inputs
    assert (made.size, made.augment, made.augment_evaluation) == (9, NoAugmentation(), True)


def test_where_relative_and_absolute_folders_start(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[1])
    here = ImageFolders("animals", size=8)(0, None)
    there = ImageFolders(str(folder), size=8)(0, folder / "nowhere")
    assert [d.labels.tolist() for d in here.domains] == [d.labels.tolist() for d in there.domains]


def test_a_split_reads_the_rows_of_domainbed(folder):
    source = ImageFolders("animals", size=8)
    domains = HeldOut(source, test=(1,), trial_seed=2)(seed=0, data_dir=folder.parent)
    whole = source(0, folder.parent).domains[0]
    rows, _ = split_indices(len(whole.labels), 0.2, seed_hash(2, 0))
    trained = domains.training[0]
    assert trained.name == "env0_in"
    assert torch.equal(trained.labels, whole.labels[rows])
    assert torch.equal(trained.inputs.read([3, 0]), whole.inputs.read([rows[3], rows[0]]))


def _reason(folder, **options):
    with pytest.raises(InputError) as caught:
        ImageFolders(str(folder), size=8, **options)(0, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_says_how_to_get_it(tmp_path):
    reason = _reason(tmp_path / "PACS")
    assert reason.startswith(
        f"{tmp_path / 'PACS'}: no such folder; run `fishr data download NAME`, or put images there as"
    )
    assert reason.endswith("as ENVIRONMENT/CLASS/IMAGE")


def test_a_missing_level_is_named(folder, tmp_path, draw):
    assert f"{folder / 'art' / 'cat'}: its images are directly in it, expected folders of classes" in _reason(
        folder / "art"
    )
    assert "cat: its images are directly in it, expected folders of environments" in _reason(folder / "art" / "cat")
    draw(folder / "zebra" / "1.jpg")
    assert f"{folder / 'zebra'}: its images are directly in it" in _reason(folder)


def test_without_images(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty: it has no images, expected folders of environments" in _reason(tmp_path / "empty")
    (tmp_path / "bare" / "art" / "cat").mkdir(parents=True)
    assert "bare: it has no images (files such as .jpg, .jpeg, .png) in 1 folders" in _reason(tmp_path / "bare")
    (folder / "labels").mkdir()
    (folder / "labels" / "train.txt").write_text("x")
    assert f"{folder / 'labels'}: it has no class, expected folders with images" in _reason(folder)
    assert ImageFolders(str(folder), size=8, environments=("art", "photo"))(0, None).classes == 3


def test_one_class_or_a_missing_environment(folder):
    for name in ("dog", "owl"):
        shutil.rmtree(folder / "art" / name)
    assert "animals: got the class 'cat' alone, expected at least 2" in _reason(folder, environments=("art",))
    missing = _reason(folder, environments=("art", "clipart"))
    assert "it has no environment 'clipart', expected art and clipart; it has art, photo and sketch" in missing


def test_a_folder_that_cannot_be_read(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    assert _reason(folder).endswith("animals: cannot be read (Permission denied); ask for access, or copy it")


def test_bad_files_are_all_named_at_once(folder):
    (folder / "art" / "cat" / "1.jpg").write_bytes(b"")
    (folder / "photo" / "dog" / "bad.png").write_bytes(b"<html>")
    reason = _reason(folder)
    assert reason.startswith("2 of 29 images cannot be read: ")
    assert f"{folder}/art/cat/1.jpg (empty file), {folder}/photo/dog/bad.png (not an image); delete" in reason


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"size": 0}, "size: got 0, expected a whole number of at least 1"),
        ({"samples": 0}, "samples: got 0, expected a whole number of at least 1"),
        ({"environments": ()}, "environments: got (), expected one or more names, once each"),
        ({"environments": ("a", "a")}, "once each"),
    ],
)
def test_settings_are_checked(options, part):
    with pytest.raises(InputError) as caught:
        ImageFolders("x", **options)
    assert part in str(caught.value)


def test_pacs(pacs):
    """24 images of each of 7 classes in each of 4 environments, in torchvision's order."""
    environments = ImageFolders("PACS-mini", size=32)(0, pacs)
    normalize = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    plain = T.Compose([T.Resize((32, 32)), T.ToTensor(), normalize])
    assert [domain.name for domain in environments.domains] == ["art_painting", "cartoon", "photo", "sketch"]
    assert environments.classes == 7
    for domain in environments.domains:
        assert domain.labels.bincount().tolist() == [24] * 7
        theirs = ImageFolder(str(pacs / "PACS-mini" / domain.name))
        assert domain.labels.tolist() == theirs.targets
        for row in (0, 100):
            assert torch.equal(domain.inputs.read([row])[0], plain(theirs[row][0]))
