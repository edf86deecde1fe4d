"""Your model in your loop: one more term and one more piece of state.

In two training domains, the color of a digit agrees with its label more often than its shape does. In the evaluation
domain "reversed" the color disagrees. Run: python own_loop.py
"""

from itertools import islice

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fishr

domains = fishr.data.ColoredDigits()(seed=0, data_dir=None)
reversed_colors = domains.evaluation[0]
# One loader a domain; batches of 1,000 are all of its samples.
loaders = [DataLoader(TensorDataset(domain.inputs, domain.labels), batch_size=1000) for domain in domains.training]


def train(weight: fishr.Schedule, steps: int = 200) -> nn.Module:
    """Return a classifier trained with the penalty at a scheduled weight."""
    torch.manual_seed(0)
    featurizer = nn.Sequential(nn.Flatten(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
    head = nn.Linear(128, 2)
    optimizer = torch.optim.Adam([*featurizer.parameters(), *head.parameters()], lr=1e-3)

    penalty = fishr.Scaled(fishr.Fishr(ema=0.5, over_parameters="sum"), weight)
    state = penalty.init(fishr.Problem.of(head, domains=len(loaders)))
    for step, batch in enumerate(islice(fishr.batches(loaders), steps)):
        seen = fishr.observe(featurizer, head, batch)  # lazy: computes only what is read
        value, state = penalty(seen, state, step)
        loss = seen.domain_losses.mean() + value
        loss = loss / max(1.0, weight(step))  # a large weight shrinks the risk instead of growing the gradient
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return nn.Sequential(featurizer, head)


def accuracy(model: nn.Module, *domains: fishr.data.Domain) -> float:
    """Return the accuracy on the samples of some domains together."""
    with torch.no_grad():
        right = [model(domain.inputs).argmax(1) == domain.labels for domain in domains]
    return torch.cat(right).float().mean().item()


for name, weight in {
    "without penalty": fishr.Constant(0.0),
    "with Fishr after a warm-up": fishr.StepSchedule(at=100, before=0.0, after=100_000.0),
}.items():
    model = train(weight)
    seen, unseen = accuracy(model, *domains.training), accuracy(model, reversed_colors)
    print(f"{name}: accuracy {seen:.3f} on the training domains, {unseen:.3f} with reversed colors")
