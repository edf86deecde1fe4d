"""Your network and your images in your loop, which can be killed at any time: run again, it continues bit for bit.

Run: python own_images.py PACS        (folders PACS/DOMAIN/CLASS/IMAGE)
Needs timm. The weights in own_images.pt are timm's: load them by ``timm.create_model("resnet18", num_classes=7)``.
"""

import argparse
from itertools import islice
from pathlib import Path

import timm
import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, RandomHorizontalFlip, Resize, ToTensor

import fishr

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--size", type=int, default=224)
options = parser.parse_args()

transform = Compose([Resize((options.size, options.size)), RandomHorizontalFlip(), ToTensor()])
data_sets = [ImageFolder(str(path), transform) for path in sorted(options.folder.iterdir()) if path.is_dir()]
loaders = [DataLoader(data, batch_size=8, shuffle=True) for data in data_sets]  # one a domain

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
network = timm.create_model("resnet18", num_classes=len(data_sets[0].classes)).to(device)
optimizer = torch.optim.AdamW(network.parameters(), lr=5e-5)
penalty = fishr.Scaled(fishr.Fishr(ema=0.95), fishr.StepSchedule(at=options.steps // 2, before=0.0, after=1000.0))
problem = fishr.Problem.of(network.fc, domains=len(loaders))
step, state, checkpoint = 0, penalty.init(problem), Path("checkpoint.pt")
if checkpoint.exists():
    saved = torch.load(checkpoint, map_location=device)
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    step, state = saved["step"], fishr.load_state(penalty, problem, saved["penalty"])


def features(images: torch.Tensor) -> torch.Tensor:
    """Return the inputs of the classifier, computed in 16 bits; losses and penalty are computed in 32."""
    with torch.autocast(images.device.type, torch.bfloat16):
        return network.forward_head(network.forward_features(images), pre_logits=True)


while step < options.steps:
    torch.manual_seed(step)  # shuffles and augmentations depend on the step alone
    for batch in islice(fishr.batches(loaders), 10):
        seen = fishr.observe(features, network.fc, batch.to(device))
        value, state = penalty(seen, state, step)
        optimizer.zero_grad()
        (seen.domain_losses.mean() + value).backward()
        optimizer.step()
        step += 1
    parts = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "penalty": fishr.state_dict(state)}
    torch.save(parts | {"step": step}, "checkpoint.partial")
    Path("checkpoint.partial").replace(checkpoint)  # never half a file
    print(f"step {step}: risk {seen.domain_losses.mean().item():.4f}, penalty {value.item():.4f}", flush=True)
torch.save(network.state_dict(), "own_images.pt")
