"""From a folder of images to predictions and weights by commands alone, killed on the way."""

import csv
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from scripts import ROOT, start_and_kill

import fishr

TOML = """
name = "pacs-mini"
steps = 12
evaluate_every = 6
checkpoint_every = 3

[data]
kind = "HeldOut"
test = [3]

[data.source]
kind = "ImageFolders"
folder = "PACS-mini"
size = 32

[featurizer]
kind = "TimmBackbone"
name = "test_resnet"
pretrained = false

[head]
kind = "LinearHead"
init = "torch"

[loss]
kind = "CrossEntropy"

[objective.penalty.fishr]
kind = "Scaled"
penalty = { kind = "Fishr", ema = 0.95 }
schedule = { kind = "StepSchedule", at = 5, before = 0.0, after = 1000.0 }

[optimizer]
kind = "AdamW"
lr = 5e-5

[batches]
kind = "Minibatch"
size = 2

[compute]
precision = "bf16"
"""


@pytest.mark.slow
def test_from_a_folder_of_images_to_predictions_and_weights_for_timm(call, home, pacs, weights, forked):
    (home / "run.toml").write_text(TOML)
    train = ("train", "run.toml", "--data-dir", pacs)
    assert call(*train, "--out", "whole").code == 0
    command = [str(ROOT / "cli.py"), *map(str, train), "--out", "killed"]
    start_and_kill(command, home, "killed/checkpoint.pt")
    assert not (home / "killed" / "result.json").exists()
    resumed = call("train", "--resume", "killed", "--data-dir", pacs)
    assert resumed.code == 0, resumed
    assert weights(home / "killed") == weights(home / "whole")

    exported = call("export", "killed", "-o", "weights.safetensors")
    assert exported.code == 0, exported
    network = timm.create_model("test_resnet", num_classes=7).eval()
    network.load_state_dict(load_file("weights.safetensors"))

    photos = pacs / "PACS-mini" / "photo" / "dog"
    predicted = call("predict", "killed", photos, "-o", "predictions.csv")
    assert predicted.code == 0, predicted
    with Path("predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(path) for path in sorted(photos.iterdir())]
    model = fishr.load_model("killed")
    with torch.no_grad():
        expected = network(model.preprocessing(rows[0]["path"]).unsqueeze(0)).softmax(1).squeeze()
    found = torch.tensor([float(rows[0][f"p_{name}"]) for name in model.class_names])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert rows[0]["class"] == model.class_names[int(expected.argmax())]
