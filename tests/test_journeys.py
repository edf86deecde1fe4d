"""From one's own images and a network of timm to its weights: killed on the way, in one's own loop and in Lightning."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from scripts import EXAMPLES, run_each, start_and_kill

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]
LIGHTNING = """
import runpy, sys
from pathlib import Path
import fishr, lightning, timm, torch
from torch import nn
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

example, data = sys.argv[1:]
torch.manual_seed(0)
network = timm.create_model("test_resnet", num_classes=7)
head, network.fc = network.fc, nn.Identity()
transform = Compose([Resize((32, 32)), ToTensor()])
data_sets = [ImageFolder(str(path), transform) for path in sorted(Path(data).iterdir())]
model = runpy.run_path(example)["Classifier"](network, head, data_sets)
model.matched = fishr.PenaltyModule(fishr.Scaled(fishr.Fishr(ema=0.95), 1000.0))
every = lightning.pytorch.callbacks.ModelCheckpoint(dirpath=".", filename="kept", enable_version_counter=False)
options = {"precision": "bf16-mixed", "limit_train_batches": 1, "reload_dataloaders_every_n_epochs": 1, "logger": False}
trainer = lightning.Trainer(max_epochs=2, callbacks=[every], **options)
trainer.fit(model, ckpt_path="kept.ckpt" if Path("kept.ckpt").exists() else None)
network.fc = head
torch.save(network.state_dict(), "weights.pt")
"""


def own_loop(folder: Path, pacs: Path) -> list[str]:
    return [str(EXAMPLES / "own_images.py"), str(pacs / "PACS-mini"), "--steps", "20", "--size", "32"]


def in_lightning(folder: Path, pacs: Path) -> list[str]:
    (folder / "in_lightning.py").write_text(LIGHTNING)
    return [str(folder / "in_lightning.py"), str(EXAMPLES / "with_lightning.py"), str(pacs / "PACS-mini")]


@pytest.mark.parametrize(
    ("command", "checkpoint", "weights", "name"),
    [
        (own_loop, "checkpoint.pt", "own_images.pt", "resnet18"),
        (in_lightning, "kept.ckpt", "weights.pt", "test_resnet"),
    ],
)
def test_a_killed_loop_continues_bit_for_bit_and_leaves_weights_for_timm(
    command: Callable[[Path, Path], list[str]], checkpoint: str, weights: str, name: str, pacs: Path, tmp_path: Path
) -> None:
    script, *arguments = command(tmp_path, pacs)
    killed = tmp_path / "killed"
    killed.mkdir()
    start_and_kill([script, *arguments], killed, checkpoint)
    assert not (killed / weights).exists()
    run_each(Path(script), [("whole", arguments), ("killed", arguments)], tmp_path)
    one, other = (torch.load(tmp_path / folder / weights) for folder in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    network = timm.create_model(name, num_classes=7)
    network.load_state_dict(other)
    assert network.eval()(torch.zeros(1, 3, 32, 32)).isfinite().all()
