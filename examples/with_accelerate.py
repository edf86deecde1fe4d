"""A penalty in Accelerate, with its state in the checkpoint, on one process or several.

Run: python with_accelerate.py 4, or torchrun --nproc-per-node 2 with_accelerate.py 4
Then ``… with_accelerate.py 8`` trains four more epochs, with the bits of a run of eight.
"""

import sys
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fishr

accelerator = Accelerator(cpu=True)
ranks = fishr.Ranks.of() if accelerator.num_processes > 1 else fishr.Ranks()
domains = fishr.data.ColoredDigits()(seed=0, data_dir=None).training
data_sets = [TensorDataset(domain.inputs, domain.labels) for domain in domains]
draws = torch.Generator()
loaders = [DataLoader(data, batch_size=32, shuffle=True, generator=draws) for data in data_sets]

torch.manual_seed(0)
network, head = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU()), nn.Linear(64, 2)
optimizer = torch.optim.AdamW([*network.parameters(), *head.parameters()], lr=1e-3)
featurizer, optimizer = accelerator.prepare(network, optimizer)
head.to(accelerator.device)  # not prepared: the penalty takes its per-sample gradients
schedule = fishr.StepSchedule(at=20, before=0.0, after=1000.0)
matched = fishr.PenaltyModule(fishr.Scaled(fishr.Fishr(ema=0.95), schedule))
accelerator.register_for_checkpointing(head, matched)
if Path("checkpoint").exists():
    accelerator.load_state("checkpoint")

for epoch in range(matched.step // 10, int(sys.argv[1])):
    draws.manual_seed(epoch * ranks.count + ranks.number)  # a resumed run draws the same batches
    for batch in islice(fishr.batches(loaders), 10):
        seen = fishr.observe(featurizer, head, batch.to(accelerator.device), ranks=ranks)
        optimizer.zero_grad()
        accelerator.backward(seen.domain_losses.mean() + matched(seen))
        fishr.average_gradients(head, ranks)
        optimizer.step()
accelerator.save_state("checkpoint")
