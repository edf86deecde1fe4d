"""A whole step of your loop compiled: featurizer, statistics and penalty in one graph, compared with the plain step.

Run: python compiled_step.py [BACKEND of torch.compile]
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import fishr

domains = fishr.data.ColoredDigits()(seed=0, data_dir=None)
drawn = torch.Generator().manual_seed(0)
batches = [fishr.data.Minibatch(size=64).draw(domains.training, drawn) for _ in range(40)]
penalty = fishr.Scaled(fishr.Fishr(ema=0.5, over_parameters="sum"), fishr.LinearSchedule(0.0, 10.0, steps=20))


def trained(wrap: Callable[[Any], Any]) -> list[torch.Tensor]:
    """Train with a step that is compiled or not, and return the losses."""
    torch.manual_seed(0)
    featurizer = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU())
    head = nn.Linear(64, 2)
    optimizer = torch.optim.SGD([*featurizer.parameters(), *head.parameters()], lr=0.1)
    state = penalty.init(fishr.Problem.of(head, domains=len(domains.training)))

    def loss_of(batch: fishr.DomainBatch, state: Any, step: int) -> tuple[torch.Tensor, Any]:
        seen = fishr.observe(featurizer, head, batch)
        value, state = penalty(seen, state, step)
        return seen.domain_losses.mean() + value, state

    step_of = wrap(loss_of)
    losses = []
    for step, batch in enumerate(batches):
        loss, state = step_of(batch, state, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


plain = trained(lambda step_of: step_of)
backend = sys.argv[1] if len(sys.argv) > 1 else "inductor"
compiled = trained(lambda step_of: torch.compile(step_of, backend=backend, fullgraph=True))
for step in range(0, 40, 13):
    print(f"step {step}: loss {plain[step].item():.6f}, compiled {compiled[step].item():.6f}")
