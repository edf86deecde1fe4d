"""Augmentations and preprocessing that files and options name."""

import importlib
import json
import sys

import pytest

PLUGIN = """
from torchvision.transforms import v2

def shaken(image, seed, preprocessing):
    return v2.Compose([v2.RandomPerspective(), v2.RandomResizedCrop(preprocessing.size)])(image)

def forgetful(image, seed, preprocessing):
    image.rotate(3)

def broken(image, seed, preprocessing):
    return image.rotated(3)
"""
RUN = """
name = "animals"
steps = 2
evaluate_every = 2
data.kind = "HeldOut"
data.test = [0]
data.holdout_fraction = 0.3
data.source = { kind = "ImageFolders", folder = "animals", size = 16 }
featurizer = { widths = [3] }
head = { kind = "LinearHead" }
loss = { kind = "CrossEntropy" }
optimizer = { kind = "Adam", lr = 0.001 }
batches = { kind = "Minibatch", size = 4 }
objective = {}
"""


@pytest.fixture
def shaky(animals, home, monkeypatch):
    (home / "shaky.py").write_text(PLUGIN)
    (home / "run.toml").write_text(RUN)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield home
    sys.modules.pop("shaky", None)
    importlib.invalidate_caches()


@pytest.mark.slow
def test_a_run_with_an_augmentation_of_ones_own_is_repeated_bit_for_bit(call, shaky):
    losses = []
    for folder, setting in (("a", "{kind='shaky:shaken'}"), ("b", "{kind='shaky:shaken'}"), ("c", "true")):
        said = call(
            *("train", "run.toml", "--plugin", "shaky", "--device", "cpu", "--out", folder),
            *("--set", f"data.source.augment={setting}"),
        )
        assert said.code == 0, said.err
        losses.append((shaky / folder / "metrics.jsonl").read_text())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("setting", "code", "part"),
    [
        ("augment={kind='shaky:forgetful'}", 2, "augment: got a NoneType from forgetful, expected a Pillow image"),
        ("augment={kind='shaky:broken'}", 1, "rotated"),
        ("augment={kind='shaky:v2'}", 2, "augment.kind: "),
        ("augment={kind='RandAugment', magnitude=-1}", 2, "augment.magnitude: got -1, expected a whole number of at"),
        ("preprocessing={size=16, std=[1, 1, 0]}", 2, "preprocessing.std: got (1.0, 1.0, 0.0), expected three numbers"),
        ("preprocessing={size=8}", 2, "size: got 16, expected 8 as in preprocessing; give one of them"),
    ],
)
def test_wrong_uses_are_one_line(call, shaky, setting, code, part):
    said = call("train", "run.toml", "--plugin", "shaky", "--device", "cpu", "--set", f"data.source.{setting}")
    assert said.code == code
    assert part in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err


@pytest.mark.slow
def test_a_cache_of_images_has_an_interpolation(call, shaky):
    options = ("--size", 16, "--interpolation", "bicubic", "--no-antialias")
    said = call("cache", "images", "data/animals", "-o", "data/b.h5", *options, "--format", "json")
    assert json.loads(said.out)["provenance"]["resize"] == "bicubic"
    train = ("train", "run.toml", "--device", "cpu", "--set", "data.source.cache=b.h5", "--set")
    bicubic = "data.source.preprocessing={size=16, interpolation='bicubic', antialias=false}"
    assert call(*train, bicubic, "--out", "run").code == 0
    refused = call(*train, "data.source.augment=false", "--out", "other")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "its images were resized bicubic, expected bilinear, antialiased; make another one with" in refused.err
    lanczos = call("cache", "images", "data/animals", "-o", "c.h5", "--interpolation", "lanczos", "--no-antialias")
    assert (lanczos.code, lanczos.err.count("\n")) == (2, 1)
    assert 'antialias: got False with "lanczos", expected True' in lanczos.err
