"""Your loop on many processes: each has some samples of every domain, and the penalty is that of all samples.

Run: torchrun --nproc-per-node 4 many_processes.py
"""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fishr


def train(ranks: fishr.Ranks) -> None:
    """Train on this process's share of each domain."""
    domains = fishr.data.ColoredDigits()(seed=0, data_dir=None)
    batch = fishr.data.FullBatch().draw(domains.training, torch.Generator(), ranks)

    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 128), nn.ReLU())
    featurizer = network if ranks.alone else DistributedDataParallel(network)
    head = nn.Linear(128, 2)  # not wrapped: the penalty takes its per-sample gradients
    optimizer = torch.optim.SGD([*featurizer.parameters(), *head.parameters()], lr=0.1)

    penalty = fishr.Scaled(fishr.Fishr(ema=0.5, over_parameters="sum"), fishr.LinearSchedule(0.0, 10.0, steps=20))
    state = penalty.init(fishr.Problem.of(head, domains=batch.domains))
    for step in range(40):
        seen = fishr.observe(featurizer, head, batch, ranks=ranks)
        value, state = penalty(seen, state, step)
        loss = seen.domain_losses.mean() + value  # the same on every process
        optimizer.zero_grad()
        loss.backward()  # DistributedDataParallel averages the featurizer's gradients here
        fishr.average_gradients(head, ranks)
        optimizer.step()
        if ranks.number == 0 and step % 13 == 0:
            print(f"step {step}: risk {seen.domain_losses.mean().item():.6f}, penalty {value.item():.6f}")


with fishr.joined("cpu") as (ranks, device):  # "auto": a GPU for each process; alone without torchrun
    train(ranks)
