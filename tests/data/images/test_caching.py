"""From files to a cache and back, to the bit."""

import shutil

import numpy as np
import pytest
import torch

from fishr.data.caches import open_images, verify
from fishr.data.environments import seed_hash
from fishr.data.images import ImageFolders, ImageList, cache_images
from fishr.data.images.decoding import decode, normalize, pixels, resize
from fishr.data.images.domainbed_augmentation import augment, draw_augmentation
from fishr.data.images.preprocessing import Preprocessing
from fishr.errors import InputError


@pytest.fixture
def cached(folder):
    """The folder's cache, beside it."""
    path = folder.parent / "images.h5"
    assert cache_images(folder, path, Preprocessing(20), workers=2)
    return path


@pytest.mark.slow
def test_evaluation_is_that_of_the_files_to_the_bit_without_the_files(folder, cached):
    files = ImageFolders("animals", size=20)(0, folder.parent)
    expected = [domain.inputs.read(range(len(domain.labels))) for domain in files.domains]
    shutil.rmtree(folder)
    from_cache = ImageFolders("animals", size=20, cache="images.h5")(0, folder.parent)
    assert from_cache.classes == files.classes == 3
    for one, other, inputs in zip(from_cache.domains, files.domains, expected, strict=True):
        assert one.name == other.name
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.inputs.read(range(len(one.labels))), inputs)
    assert verify(cached) == ()


def test_training_crops_are_cut_out_of_the_resized_image(folder, cached):
    inputs = ImageFolders("animals", size=20, cache=str(cached))(0, None).domains[1].inputs
    drawn = draw_augmentation(9, 20, 20)
    path = folder / inputs.images.names[2]
    assert torch.equal(
        inputs.read([2], [9]), normalize(pixels([augment(resize(decode(path), 20), drawn, Preprocessing(20))], 20))
    )


def test_evaluation_that_is_augmented_has_the_files_draws(folder, cached):
    options = {"size": 20, "augment_evaluation": True}
    made = [ImageFolders("animals", **options, **more)(0, folder.parent) for more in ({}, {"cache": "images.h5"})]
    files, from_cache = (environments.domains[0].inputs for environments in made)
    assert files.images.names == from_cache.images.names
    assert not torch.equal(from_cache.read([0]), from_cache.plain().read([0]))
    drawn = draw_augmentation(seed_hash("evaluation", files.images.names[3]), 20, 20)
    by_hand = augment(resize(decode(files.images.path(3)), 20), drawn, Preprocessing(20))
    assert torch.equal(from_cache.read([3]), normalize(pixels([by_hand], 20)))


def test_environments_and_samples_choose_as_with_files(folder, cached):
    options = {"size": 20, "environments": ("photo", "art"), "samples": 5}
    files = ImageFolders("animals", **options)(0, folder.parent)
    from_cache = ImageFolders("animals", **options, cache="images.h5")(0, folder.parent)
    only = ImageFolders("animals", size=20, environments=("photo",), cache="images.h5")(0, folder.parent)
    assert only.classes == 2
    for one, other in zip(from_cache.domains, files.domains, strict=True):
        assert one.name == other.name
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.inputs.read(range(5)), other.inputs.read(range(5)))


def test_a_cache_that_does_not_fit_is_refused(folder, cached):
    with pytest.raises(InputError, match=r"images.h5: its images are 20 × 20 pixels, expected 24 × 24; make another"):
        ImageFolders("animals", size=24, cache="images.h5")(0, folder.parent)
    with pytest.raises(InputError, match=r"images.h5: it has no environment 'clip', expected clip; it has art, photo"):
        ImageFolders("animals", size=20, cache="images.h5", environments=("clip",))(0, folder.parent)
    with pytest.raises(InputError, match=r"other.h5: no such file"):
        ImageFolders("animals", size=20, cache="other.h5")(0, folder.parent)


@pytest.mark.slow
def test_a_list_is_cached_as_its_folder_is(folder, cached):
    entries = [
        f"{path.relative_to(folder).parts[0]},{path.parent.name},animals/{path.relative_to(folder)}"
        for path in sorted(folder.rglob("*.*"), reverse=True)
    ]
    listed = folder.parent / "all.csv"
    listed.write_text("\n".join(["environment,class,path", *entries]))
    assert cache_images(listed, folder.parent / "listed.h5", Preprocessing(20), workers=1)
    made = ImageList("all.csv", size=20, cache="listed.h5")(0, folder.parent)
    files = ImageList("all.csv", size=20)(0, folder.parent)
    for one, other in zip(made.domains, files.domains, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.inputs.read(range(8)), other.inputs.read(range(8)))
    assert open_images(folder.parent / "listed.h5").key != open_images(cached).key


def test_the_key_is_that_of_the_images_wherever_they_lie(folder, cached, tmp_path, draw):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert cache_images(moved, tmp_path / "moved.h5", Preprocessing(20), workers=3)
    assert open_images(tmp_path / "moved.h5").key == open_images(cached).key
    assert not cache_images(moved, cached, Preprocessing(20), workers=1)


@pytest.mark.parametrize("change", ["pixels", "class", "name", "more", "size"])
def test_made_of_something_else_it_is_refused_and_kept(folder, cached, draw, change):
    before = cached.read_bytes()
    first = sorted((folder / "art" / "cat").iterdir())[0]
    match change:
        case "pixels":
            content = bytearray(first.read_bytes())
            content[-20] ^= 1
            first.write_bytes(content)
        case "class":
            first.rename(folder / "art" / "dog" / "moved.jpg")
        case "name":
            first.rename(first.with_stem("z"))
        case "more":
            draw(folder / "art" / "cat" / "z.png")
        case _:
            pass
    part = "size = 20, expected 21" if change == "size" else "images_sha256 = .*…, expected .*…"
    with pytest.raises(InputError, match=f"images.h5: made with {part}; choose another name"):
        cache_images(folder, cached, Preprocessing(21 if change == "size" else 20), workers=1)
    assert cached.read_bytes() == before


@pytest.mark.parametrize(("old", "new"), [("art,cat,a/0.png", "art,dog,a/0.png"), ("a/0.png", "b/0.png")])
def test_the_class_and_the_name_of_an_image_count(tmp_path, draw, old, new):
    """The same pixels in the same order."""
    listed, cached = tmp_path / "all.csv", tmp_path / "images.h5"
    for name in ("a/0.png", "b/0.png"):
        draw(tmp_path / name, 0)
    draw(tmp_path / "a" / "1.png", 1)
    draw(tmp_path / "a" / "2.png", 2)
    listed.write_text("environment,class,path\nart,cat,a/0.png\nart,dog,a/1.png\nart,cat,a/2.png\n")
    assert cache_images(listed, cached, Preprocessing(8), workers=1)
    assert not cache_images(listed, cached, Preprocessing(8), workers=1)
    listed.write_text(listed.read_text().replace(old, new))
    with pytest.raises(InputError, match=r"images.h5: made with images_sha256 = "):
        cache_images(listed, cached, Preprocessing(8), workers=1)


def test_bad_images_are_named_before_the_work(folder):
    (folder / "art" / "cat" / "1.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"1 of 28 images cannot be read: .*1\.jpg \(not an image\)"):
        cache_images(folder, folder.parent / "a.h5", Preprocessing(8), workers=1)
    assert [path.name for path in folder.parent.iterdir()] == ["animals"]


def test_workers_change_nothing(folder, cached, tmp_path):
    one, other = open_images(cached), tmp_path / "b.h5"
    cache_images(folder, other, Preprocessing(20), workers=5)
    assert open_images(other).key == one.key
    assert np.array_equal(open_images(other).domain(0)[1], one.domain(0)[1])


@pytest.mark.slow
def test_pacs(pacs, tmp_path):
    cache_images(pacs / "PACS-mini", tmp_path / "pacs.h5", Preprocessing(48), workers=2)
    files = ImageFolders("PACS-mini", size=48)(0, pacs)
    from_cache = ImageFolders("PACS-mini", size=48, cache=str(tmp_path / "pacs.h5"))(0, pacs)
    for one, other in zip(from_cache.domains, files.domains, strict=True):
        rows = range(0, 168, 7)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.inputs.read(rows), other.inputs.read(rows))
