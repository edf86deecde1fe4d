"""A penalty in Lightning, with its state in the checkpoint.

Run: python with_lightning.py 4
Then ``python with_lightning.py 8`` trains four more epochs, with the bits of a run of eight.
"""

import sys
from collections.abc import Iterator
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
        self.featurizer, self.head, self.data_sets = featurizer, head, data_sets
        schedule = fishr.StepSchedule(at=20, before=0.0, after=1000.0)
        self.matched = fishr.PenaltyModule(fishr.Scaled(fishr.Fishr(ema=0.95), schedule))

    def train_dataloader(self) -> Iterator[fishr.DomainBatch]:
        # The draws of an epoch depend on its first step alone, since Lightning saves no random state.
        draws = torch.Generator().manual_seed(self.global_step)
        loaders = [DataLoader(data, batch_size=32, shuffle=True, generator=draws) for data in self.data_sets]
        return fishr.batches(loaders)

    def training_step(self, batch: fishr.DomainBatch) -> Tensor:
        seen = fishr.observe(self.featurizer, self.head, batch)
        return seen.domain_losses.mean() + self.matched(seen)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


if __name__ == "__main__":
    torch.manual_seed(0)
    domains = fishr.data.ColoredDigits()(seed=0, data_dir=None).training
    data_sets = [TensorDataset(domain.inputs, domain.labels) for domain in domains]
    featurizer = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU())
    epochs: dict[str, Any] = {"limit_train_batches": 10, "reload_dataloaders_every_n_epochs": 1}
    trainer = lightning.Trainer(max_epochs=int(sys.argv[1]), logger=False, enable_checkpointing=False, **epochs)
    checkpoint = Path("lightning.ckpt")
    resumed = str(checkpoint) if checkpoint.exists() else None
    trainer.fit(Classifier(featurizer, nn.Linear(64, 2), data_sets), ckpt_path=resumed)
    trainer.save_checkpoint(checkpoint)
