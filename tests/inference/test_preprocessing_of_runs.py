"""A run with other preprocessing and augmentation than the default: resumed, loaded, predicted, exported."""

import attrs
import pytest
import torch

from fishr.configuration import dumps
from fishr.data import HeldOut, ImageFolders
from fishr.data.images import Preprocessing, RandAugment
from fishr.inference import export_model, image_files, load_model, predict
from fishr.training import run

PREPROCESSING = Preprocessing(32, (0.5, 0.25, 0.5), (0.25, 0.5, 0.5), "bicubic")


@pytest.fixture(scope="module")
def experiment(experiment_of):
    source = ImageFolders("animals", augment=RandAugment(), preprocessing=PREPROCESSING)
    return experiment_of(data=HeldOut(source, test=(0,)), steps=3, checkpoint_every=1)


@pytest.fixture(scope="module")
def folder(experiment, train_in, photos, tmp_path_factory):
    return train_in(experiment, tmp_path_factory.mktemp("runs") / "animals", photos)


def test_an_interrupted_run_resumes_to_the_same_bits(experiment, folder, photos, tmp_path):
    options = {"experiment_text": dumps(experiment), "data_dir": photos}
    going = run(experiment, tmp_path / "run", **options)
    for _ in range(4):
        next(going)
    going.close()
    list(run(experiment, tmp_path / "run", **options, resume=True))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()


def test_its_preprocessing_is_that_of_the_run(experiment, folder, photos, tmp_path):
    model = load_model(folder)
    assert model.preprocessing == PREPROCESSING
    domain = experiment.data.source(0, photos).domains[1]
    with torch.no_grad():
        expected = model.probabilities(domain.inputs.read(range(12)))
    found = torch.cat([part.probabilities for part in predict(model, image_files([photos / "animals" / "photo"]))])
    torch.testing.assert_close(found, expected)
    export_model(model, folder, tmp_path / "w.safetensors")
    card = (tmp_path / "w.md").read_text()
    assert "resized as a whole to 32 × 32 pixels (bicubic, antialiased), " in card
    assert "minus the mean (0.5, 0.25, 0.5), divided by the standard deviation (0.25, 0.5, 0.5)" in card


def test_an_augmentation_changes_the_weights(experiment, folder, photos, tmp_path, train_in):
    source = attrs.evolve(experiment.data.source, augment=False)
    plain = train_in(attrs.evolve(experiment, data=HeldOut(source, test=(0,))), tmp_path / "run", photos)
    one, other = load_model(folder), load_model(plain)
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
