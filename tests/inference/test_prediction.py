"""Predictions of images against the model on inputs made one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fishr.data.images import ImageInputs, Preprocessing
from fishr.data.images.image_data import list_images
from fishr.data.reading import tensor_of
from fishr.errors import InputError
from fishr.inference import TrainedModel, image_files, load_model, predict
from fishr.training.signature import Signature


@pytest.fixture(scope="module")
def model(photo_run):
    return load_model(photo_run)


@pytest.fixture(scope="module")
def folder(photos):
    return photos / "animals"


def together(parts):
    parts = list(parts)
    return [p for one in parts for p in one.paths], torch.cat([one.probabilities for one in parts])


def test_inputs_are_those_of_evaluation_to_the_bit(model, folder):
    """Of images in RGB, gray, with a palette and with alpha, of several sizes."""
    for listed in list_images(folder):
        expected = tensor_of(ImageInputs(listed.images, Preprocessing(32), augment=False))
        paths = listed.paths()
        assert torch.equal(torch.stack([model.preprocessing(path) for path in paths]), expected)
        assert torch.equal(torch.stack([model.preprocessing(Image.open(path)) for path in paths]), expected)


def test_sixteen_bits_are_read_alike_from_file_and_image(model, tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (40, 50), np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with Image.open(tmp_path / "deep.png") as image:
        found = model.preprocessing(image)
        assert image.mode.startswith("I")
    assert torch.equal(found, model.preprocessing(tmp_path / "deep.png"))
    assert torch.equal(found, model.preprocessing(Image.fromarray((values >> 8).astype(np.uint8))))


def test_probabilities_are_those_of_one_image_at_a_time(model, folder):
    paths, found = together(predict(model, image_files([folder]), batch=5))
    assert len(paths) == 24
    with torch.no_grad():
        for path, row in zip(paths, found, strict=True):
            alone = model.probabilities(model.preprocessing(path)[None])[0]
            torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.integers(1, 30))
def test_no_batch_size_changes_which_images_are_predicted(model, folder, batch):
    whole = next(predict(model, image_files([folder]), batch=24))
    paths, found = together(predict(model, image_files([folder]), batch=batch))
    assert tuple(paths) == whole.paths
    torch.testing.assert_close(found, whole.probabilities, rtol=1e-5, atol=1e-6)


def test_the_class_is_the_one_that_evaluation_counts(model, folder):
    for one in predict(model, image_files([folder])):
        assert torch.equal(one.classes, one.probabilities.argmax(1))


def test_files_are_sorted_below_folders_and_given_files_come_as_given(folder, tmp_path):
    found = list(image_files([folder]))
    assert found == sorted(folder.rglob("*.png"))
    own = tmp_path / "photo.unknown"
    own.write_bytes(b"")
    (tmp_path / "inside").mkdir()
    for name in (".hidden.png", "b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / "inside" / name).write_bytes(b"")
    assert list(image_files([own, tmp_path / "inside"])) == [
        own,
        *(tmp_path / "inside" / n for n in ("a.jpg", "b.PNG")),
    ]
    with pytest.raises(InputError, match=r"nowhere: no such file or folder; give images, folders or lists of images"):
        list(image_files([Path("nowhere")]))


def test_unreadable_files_are_named_and_the_others_predicted(model, folder, tmp_path):
    good = next(folder.rglob("*.png"))
    cut, text, gone = (tmp_path / name for name in ("cut.png", "text.png", "gone.png"))
    cut.write_bytes(good.read_bytes()[:60])
    text.write_text("no image")
    paths = [cut, good, text, gone]
    (whole,) = predict(model, paths)
    assert (whole.paths, [one.path for one in whole.unreadable]) == ((good,), [cut, text, gone])
    assert [one.reason for one in whole.unreadable][1:] == ["not an image", "No such file or directory"]
    parts = list(predict(model, paths, batch=1))
    assert [len(one.paths) for one in parts] == [0, 1, 0, 0]
    assert parts[0].probabilities.shape == (0, 3)


def test_only_a_few_images_are_open_at_once(model, folder):
    """Paths are taken as they are needed, so that neither they nor images pile up."""
    taken = 0

    def paths():
        nonlocal taken
        for path in [*folder.rglob("*.png")] * 3:
            taken += 1
            yield path

    going = predict(model, paths(), batch=4)
    next(going)
    assert taken == 8
    next(going)
    assert taken == 12
    going.close()


def test_a_model_of_other_data_is_refused(model):
    other = TrainedModel(model.featurizer, model.head, model.experiment, Signature((2, 8, 8), 3), 0)
    with pytest.raises(InputError, match=r"its data were no images in files.* tensors of 2 × 8 × 8 numbers"):
        next(predict(other, [Path("a.png")]))


def test_a_preprocessing_has_its_own_mean_and_deviation():
    image = Image.new("RGB", (5, 9), (255, 0, 51))
    found = Preprocessing(4, mean=(0.5, 0.25, 0.2), std=(0.25, 0.5, 1.0))(image)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([2.0, -0.5, 0.0]))
    with pytest.raises(InputError, match="size: got 0, expected a whole number of at least 1"):
        Preprocessing(0)
