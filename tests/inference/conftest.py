"""Runs of a few steps on a few small images."""

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from fishr.configuration import dumps
from fishr.data import HeldOut, ImageFolders, Minibatch
from fishr.losses import CrossEntropy
from fishr.models import MNISTCNN, LinearHead
from fishr.penalties import ERM
from fishr.training import Adam, Experiment, Objective, run

CLASSES = ("cat", "dog", "elk")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Images of several sizes and modes in two environments of three classes; returns the data folder."""
    data = tmp_path_factory.mktemp("data")
    for number in range(24):
        environment, name = ("art", "photo")[number % 2], CLASSES[number // 2 % 3]
        path = data / "animals" / environment / name / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        colors = np.random.default_rng(number).integers(0, 256, (20 + number, 31, 3), np.uint8)
        Image.fromarray(colors).convert(("RGB", "L", "P", "RGBA")[number // 6]).save(path)
    return data


def photo_experiment(featurizer=None, **changed):
    plain = Experiment(
        name="animals",
        data=HeldOut(ImageFolders("animals", size=32, augment=False), test=(0,)),
        featurizer=featurizer or MNISTCNN(),
        head=LinearHead(init="torch"),
        loss=CrossEntropy(),
        objective=Objective(risk=ERM(over="domains")),
        optimizer=Adam(lr=1e-3),
        batches=Minibatch(4),
        steps=2,
        seed=3,
    )
    return attrs.evolve(plain, **changed)


def trained(experiment, folder, data=None):
    list(run(experiment, folder, experiment_text=dumps(experiment), data_dir=data))
    return folder


@pytest.fixture(scope="session")
def experiment_of():
    return photo_experiment


@pytest.fixture(scope="session")
def train_in():
    return trained


@pytest.fixture(scope="session")
def photo_run(photos, tmp_path_factory):
    """A finished run of the small network, for reading only."""
    return trained(photo_experiment(), tmp_path_factory.mktemp("runs") / "animals", photos)


@pytest.fixture
def without_signature():
    """Make a run folder one of a version that kept no signature."""

    def forget(folder):
        tree = torch.load(folder / "checkpoint.pt", weights_only=True)
        del tree["signature"]
        torch.save(tree, folder / "checkpoint.pt")
        return folder

    return forget
