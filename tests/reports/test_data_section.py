"""Sections of data and classes, for data sets of all shapes."""

import base64
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from fishr.data import Domain, Domains
from fishr.inference.scoring import DomainResult
from fishr.metrics import classification
from fishr.reports import Chart, RunData, Table
from fishr.reports.data_section import class_section, data_section
from fishr.reports.sample_pictures import sample_pictures
from fishr.training import DomainScore


def data(inputs, labels, classes=3, names=None):
    return Domains((Domain("photo", inputs, labels),), (Domain("art", inputs, labels),), classes, names)


def pixels(picture):
    return np.asarray(Image.open(BytesIO(base64.b64decode(picture.url.split(",")[1]))))


def test_a_strip_has_a_sample_of_each_class_in_turn():
    inputs = torch.zeros(5, 3, 4, 4)
    inputs[3, 0], inputs[4, 1] = 1.0, 1.0
    domains = data(inputs, torch.tensor([0, 0, -1, 2, 1]), names=("cat", "dog", "owl"))
    photo, art = sample_pictures(domains)
    assert photo.text == "4 samples of photo, of class cat, dog, owl, cat"
    assert (photo.title, art.title) == ("photo (training)", "art (evaluation)")
    strip = pixels(photo)
    # Green of the dog, red of the owl.
    assert [tuple(strip[36, 36 + 74 * place]) for place in range(4)] == [(0, 0, 0), (0, 255, 0), (255, 0, 0), (0, 0, 0)]


@pytest.mark.parametrize(
    ("shape", "pictures"), [((5,), 0), ((4, 5), 0), ((1, 4, 5), 2), ((2, 4, 5), 2), ((3, 100, 90), 2), ((4, 5, 5), 0)]
)
def test_inputs_that_are_images_have_pictures(shape, pictures):
    found = sample_pictures(data(10 * torch.randn(9, *shape), torch.arange(9) % 3))
    assert len(found) == pictures
    assert {pixels(one).shape for one in found} <= {(72, 8 * 74 - 2, 3)}


def test_normalized_images_have_the_colors_of_their_files(tmp_path):
    from fishr.data.images import ImageFiles, Preprocessing
    from fishr.data.images.image_inputs import ImageInputs

    Image.new("RGB", (90, 90), (200, 100, 50)).save(tmp_path / "a.png")
    inputs = ImageInputs(ImageFiles(tmp_path, ("a.png",)), Preprocessing(80))
    (picture, _) = sample_pictures(data(inputs, torch.tensor([0])))
    assert abs(pixels(picture)[36, 36].astype(int) - (200, 100, 50)).max() <= 3


def test_many_classes_are_counted_in_three_numbers_and_labels_that_are_numbers_not_at_all():
    inputs = torch.zeros(40, 2)
    (table,) = data_section(RunData(data(inputs, torch.arange(40) // 2, classes=30))).blocks
    assert table.head[3:] == ["classes", "fewest of a class", "most of a class"]
    assert table.rows[0] == ["photo", "training", 40, 20, 2, 2]
    (table,) = data_section(RunData(data(inputs, torch.rand(40), classes=1))).blocks
    assert table.rows[1] == ["art", "evaluation", 40]


def test_the_confusions_of_many_classes_are_listed_by_their_number():
    labels = np.arange(50).repeat(4)
    predicted = labels.copy()
    predicted[:3], predicted[8] = 7, 0
    found = classification(np.eye(50)[predicted], labels, resamples=10)
    results = (DomainResult(DomainScore("photo", "training", 1.0, 0.98, 200), found),)
    metrics, confusions = class_section(RunData(None, results)).blocks
    assert metrics.rows[0][:2] == ["photo", found.accuracy.value]
    assert confusions.rows == [("photo", "0", "7", 3, 0.75), ("photo", "2", "0", 1, 0.25)]
    few = classification(np.eye(3)[[0, 1, 1]], np.array([0, 1, 2]), resamples=0)
    blocks = class_section(RunData(None, (DomainResult(DomainScore("photo", "training", 1.0, 0.7, 3), few),))).blocks
    assert [type(block) for block in blocks][::2] == [Table, Chart]
    assert blocks[0].rows[0][-1] is None
