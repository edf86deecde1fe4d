"""From images to a file of predictions and to plain timm: a run that is killed, resumed, exported and applied."""

import csv
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file

CONFIGURATION = """
name = "animals"
steps = 4
checkpoint_every = 1
[data]
kind = "HeldOut"
test = [0]
holdout_fraction = 0.5
source = { kind = "ImageFolders", folder = "animals", size = 32 }
[featurizer]
kind = "TimmBackbone"
name = "test_resnet"
pretrained = false
[head]
kind = "LinearHead"
[loss]
kind = "CrossEntropy"
[objective.penalty.fishr]
kind = "Scaled"
penalty = { kind = "Fishr", ema = 0.9 }
schedule = 10.0
[optimizer]
kind = "Adam"
lr = 0.001
[batches]
kind = "Minibatch"
size = 2
[compute]
precision = "bf16"
"""


@pytest.mark.slow
def test_the_journey(call, home, animals, monkeypatch):
    from fishr.training import journal

    (home / "run.toml").write_text(CONFIGURATION)
    shutil.copytree(animals / "photo", animals / "sketch")
    save, made = journal.save, []

    def killing(*arguments):
        save(*arguments)
        made.append(arguments)
        if len(made) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal, "save", killing)
    assert call("train", "run.toml", "--out", "run", "--device", "cpu").code == 1
    assert call("train", "--resume", "run", "--device", "cpu").code == 0
    assert call("train", "run.toml", "--out", "whole", "--device", "cpu").code == 0
    shutil.rmtree(animals / "sketch")
    shutil.move(animals, home / "photos")
    for name in ("run", "whole"):
        said = call("export", name, "-o", f"{name}.safetensors")
        assert (said.code, said.out.splitlines()[-1]) == (0, "names: timm's"), said
        assert call("predict", name, "photos", "-o", f"{name}.csv", "--device", "cpu").code == 0
    weights, other = load_file("run.safetensors"), load_file("whole.safetensors")
    assert all(torch.equal(value, other[name]) for name, value in weights.items())
    assert (home / "run.csv").read_bytes() == (home / "whole.csv").read_bytes()

    from fishr.data.images import Preprocessing

    network = timm.create_model("test_resnet", num_classes=2)
    network.load_state_dict(weights, strict=True)
    with (home / "run.csv").open(newline="") as file, torch.no_grad():
        for row in csv.DictReader(file):
            found = network.eval()(Preprocessing(32)(row["path"])[None]).softmax(1)[0]
            expected = torch.tensor([float(row["p_cat"]), float(row["p_dog"])])
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
