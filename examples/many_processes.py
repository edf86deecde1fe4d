"""Your loop on many processes: each has some rows of every domain, and the penalty is that of all of them.

Run: torchrun --nproc-per-node 4 many_processes.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fishr

dist.init_process_group("gloo")  # "nccl" on GPUs
ranks = fishr.Ranks.of()

domains = fishr.data.ColoredDigits()(seed=0, data_dir=None)
batch = fishr.data.FullBatch().draw(domains.training, torch.Generator(), ranks)  # this process's share

torch.manual_seed(0)
featurizer = DistributedDataParallel(nn.Sequential(nn.Flatten(), nn.Linear(128, 128), nn.ReLU()))
head = nn.Linear(128, 2)  # not wrapped: its per-sample gradients are what the penalty is about
optimizer = torch.optim.SGD([*featurizer.parameters(), *head.parameters()], lr=0.1)

penalty = fishr.Scaled(fishr.Fishr(ema=0.5, over_parameters="sum"), fishr.LinearSchedule(0.0, 10.0, steps=50))
state = penalty.init(fishr.Problem.of(head, domains=batch.domains))
for step in range(100):
    seen = fishr.observe(featurizer, head, batch, ranks=ranks)
    value, state = penalty(seen, state, step)
    loss = seen.domain_losses.mean() + value  # the same on every process
    optimizer.zero_grad()
    loss.backward()  # DistributedDataParallel averages the featurizer's gradients here
    for parameter, gradient in zip(
        head.parameters(), fishr.mean_over_ranks([p.grad for p in head.parameters()], ranks), strict=True
    ):
        parameter.grad = gradient
    optimizer.step()
    if ranks.number == 0 and step % 33 == 0:
        print(f"step {step}: risk {seen.domain_losses.mean().item():.6f}, penalty {value.item():.6f}")
dist.destroy_process_group()
