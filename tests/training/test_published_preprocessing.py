"""A run on images with another preprocessing than that of its published weights gets a warning that names both."""

import warnings

import attrs
import numpy as np
import pytest
import torch
from attrs import frozen
from PIL import Image
from torch import nn

from fishr.data import HeldOut, ImageFolders
from fishr.data.images import Preprocessing
from fishr.losses import CrossEntropy
from fishr.models import MLP, LinearHead
from fishr.protocols import colored_digits
from fishr.training import Frozen, build_model

IMAGENET, HALVES = Preprocessing(16), Preprocessing(16, (0.5,) * 3, (0.5,) * 3)


@frozen
class Published:
    """Featurizer whose weights know their preprocessing."""

    own: Preprocessing | None

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def features(self, shape: tuple[int, ...]) -> int:
        return shape[0]

    def published_preprocessing(self) -> Preprocessing | None:
        return self.own


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for number in range(8):
        path = folder / "animals" / ("art", "photo")[number % 2] / ("cat", "dog")[number // 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)).save(path)
    return folder


def warned(data, featurizer, preprocessing=IMAGENET):
    """What building the model of a run warns of."""
    source = HeldOut(ImageFolders("animals", preprocessing=preprocessing), test=(0,), holdout_fraction=0.5)
    parts = {"data": source, "featurizer": featurizer, "head": LinearHead(), "loss": CrossEntropy()}
    experiment = attrs.evolve(colored_digits(), **parts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_model(experiment, experiment.data(0, data))
    return [str(one.message) for one in caught]


@pytest.mark.parametrize("wrap", [lambda part: part, Frozen])
@pytest.mark.parametrize(
    "own",
    [
        HALVES,
        Preprocessing(32),
        Preprocessing(16, interpolation="bicubic"),
        Preprocessing(16, mean=(0.485, 0.456, 0.42)),
        Preprocessing(16, std=(0.229, 0.24, 0.225)),
    ],
    ids=str,
)
def test_a_difference_is_warned_of_with_both(data, own, wrap):
    (message,) = warned(data, wrap(Published(own)))
    assert message.startswith(f"preprocessing: the images have {IMAGENET}, ")
    assert f"trained with {own};" in message


@pytest.mark.parametrize(
    "own", [IMAGENET, Preprocessing(16, mean=(0.48, 0.46, 0.41)), Preprocessing(16, std=(0.222, 0.231, 0.23))], ids=str
)
def test_rounded_means_and_deviations_are_the_same(data, own):
    assert not warned(data, Published(own))


def test_it_is_the_preprocessing_of_the_data_that_counts(data):
    assert not warned(data, Published(HALVES), HALVES)
    assert warned(data, Published(IMAGENET), HALVES)


@pytest.mark.parametrize("featurizer", [Published(None), MLP(widths=(4,)), Frozen(Published(HALVES), weights="run")])
def test_weights_of_ones_own_have_none(data, featurizer, monkeypatch):
    monkeypatch.setattr("fishr.training.frozen_features._fill", lambda module, path: None)
    assert not warned(data, featurizer)


def test_data_without_images_have_none():
    experiment = attrs.evolve(colored_digits(), featurizer=Published(HALVES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_model(experiment, experiment.data(0, None))
