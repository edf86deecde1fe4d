"""The card of an exported model says what the run folder says."""

import json
import shutil

import attrs
import torch

from fishr.inference import export_model, load_model
from fishr.protocols import colored_digits


def card_of(folder, place):
    export_model(load_model(folder), folder, place / "w.safetensors")
    return (place / "w.md").read_text()


def test_it_has_data_method_settings_numbers_and_versions(photo_run, tmp_path):
    text = card_of(photo_run, tmp_path)
    result = json.loads((photo_run / "result.json").read_text())
    assert text.startswith("# animals\n\nA classifier of 3 classes, after 2 of 2 steps with seed 3")
    assert "Classes: 0 cat, 1 dog, 2 elk." in text
    assert "resized as a whole to 32 × 32 pixels" in text
    assert "the mean (0.485, 0.456, 0.406), divided by the standard deviation (0.229, 0.224, 0.225)" in text
    assert "loss at step 0 = risk (mean over domains)" in text
    assert (photo_run / "config.toml").read_text().strip() in text
    for score in result["scores"]:
        line = next(line for line in text.splitlines() if f"{score['name']} ({score['environment']})" in line)
        assert f" {score['accuracy']:.1%} " in line
        assert f" {score['loss']:.4f} " in line
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert ["", "torch", str(torch.__version__), str(torch.__version__), ""] in rows


def test_a_single_logit_is_explained(train_in, tmp_path):
    folder = train_in(attrs.evolve(colored_digits(), steps=1), tmp_path / "run")
    text = card_of(folder, tmp_path)
    assert "numbered from 0 to 1. The single logit is that of class 1." in text
    assert "Inputs are float32 [N, 2, 8, 8], as the data set of the configuration makes them." in text


def test_weights_between_two_evaluations_have_no_numbers(photo_run, tmp_path):
    folder = shutil.copytree(photo_run, tmp_path / "run")
    text = (folder / "metrics.jsonl").read_text()
    lines = [line.replace('"step": 2', '"step": 1') if "scores" in line else line for line in text.splitlines()]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "result.json").unlink()
    text = card_of(folder, tmp_path)
    assert f"not evaluated; `fishr evaluate {folder.name}` scores them" in text
    assert "unknown" in text
