"""A penalty in Lightning, with its state in the checkpoint.

Run: python with_lightning.py 4
Then ``python with_lightning.py 8`` trains four more epochs, with the bits of a run of eight.
"""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fishr


class Classifier(lightning.LightningModule):
    """Your network, trained with Fishr; each domain has a data set."""

    def __init__(self, featurizer: nn.Module, head: nn.Module, data_sets: list[Any]) -> None:
        super().__init__()
        self.featurizer, self.head, self.data_sets, self.saved = featurizer, head, data_sets, None
        self.penalty = fishr.Scaled(fishr.Fishr(ema=0.95), fishr.StepSchedule(at=20, before=0.0, after=1000.0))

    def train_dataloader(self) -> "Batches":
        return Batches(self)

    def on_fit_start(self) -> None:  # the head is on its device now
        problem = fishr.Problem.of(self.head, domains=len(self.data_sets))
        self.state = self.penalty.init(problem)
        if self.saved is not None:
            self.state = fishr.load_state(self.penalty, problem, self.saved)

    def training_step(self, batch: fishr.DomainBatch) -> Tensor:
        seen = fishr.observe(self.featurizer, self.head, batch)
        value, self.state = self.penalty(seen, self.state, self.global_step)
        return seen.domain_losses.mean() + value

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["penalty"] = fishr.state_dict(self.state)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.saved = checkpoint["penalty"]


class Batches:
    """Ten batches an epoch; their draws depend on its first step alone, since Lightning saves no random state."""

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def __iter__(self) -> Iterator[fishr.DomainBatch]:
        draws = torch.Generator().manual_seed(self.model.global_step)
        loaders = [DataLoader(data, batch_size=32, shuffle=True, generator=draws) for data in self.model.data_sets]
        return islice(fishr.batches(loaders), 10)


if __name__ == "__main__":
    torch.manual_seed(0)
    domains = fishr.data.ColoredDigits()(seed=0, data_dir=None).training
    data_sets = [TensorDataset(domain.inputs, domain.labels) for domain in domains]
    featurizer = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU())
    trainer = lightning.Trainer(max_epochs=int(sys.argv[1]), logger=False, enable_checkpointing=False)
    checkpoint = Path("lightning.ckpt")
    resumed = str(checkpoint) if checkpoint.exists() else None
    trainer.fit(Classifier(featurizer, nn.Linear(64, 2), data_sets), ckpt_path=resumed)
    trainer.save_checkpoint(checkpoint)
