"""Micro-batches with the penalty of the whole batch, for a batch that is too large for the featurizer's memory.

A penalty compares statistics of whole domains, so the mean of its values on micro-batches is another quantity. Here the
featurizer runs on one micro-batch at a time, head and penalty on the features of all samples. The gradients are those
of the whole batch. Run: python micro_batches.py
"""

import torch
from torch import nn

import fishr

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
MICRO_BATCHES = 8

domains = fishr.data.ColoredDigits()(seed=0, data_dir=None)
drawn = fishr.data.Minibatch(size=400).draw(domains.training, torch.Generator().manual_seed(0))
batch = fishr.DomainBatch(drawn.inputs.double(), drawn.labels, drawn.sizes)
featurizer = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.Tanh())
head = nn.Linear(64, 2)
parameters = [*featurizer.parameters(), *head.parameters()]
penalty = fishr.Fishr(over_parameters="sum")
state = penalty.init(fishr.Problem.of(head, domains=batch.domains))


def loss_of(seen: fishr.Observation) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss and its penalty."""
    value, _ = penalty(seen, state, step=0)
    return seen.domain_losses.mean() + 1000 * value, value


def whole() -> torch.Tensor:
    """Differentiate the whole batch at once and return the penalty."""
    loss, value = loss_of(fishr.observe(featurizer, head, batch))
    loss.backward()
    return value


def micro_batched() -> torch.Tensor:
    """Do the same in micro-batches: the featurizer runs twice and keeps the activations of one micro-batch."""
    accumulated = fishr.accumulate(featurizer, MICRO_BATCHES)
    loss, value = loss_of(fishr.observe(accumulated, head, batch))
    loss.backward()
    return value


def averaged() -> torch.Tensor:
    """Average the penalties of micro-batches of every domain, which is wrong."""
    values = []
    parts = [rows.chunk(MICRO_BATCHES) for rows in batch.inputs.split(batch.sizes)]
    answers = [rows.chunk(MICRO_BATCHES) for rows in batch.labels.split(batch.sizes)]
    for inputs, labels in zip(zip(*parts, strict=True), zip(*answers, strict=True), strict=True):
        micro = fishr.DomainBatch(torch.cat(inputs), torch.cat(labels), tuple(map(len, labels)))
        loss, value = loss_of(fishr.observe(featurizer, head, micro))
        (loss / MICRO_BATCHES).backward()
        values.append(value)
    return torch.stack(values).mean()


found = {}
for way in (whole, micro_batched, averaged):
    for parameter in parameters:
        parameter.grad = None
    value = way()
    gradient = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    found[way] = (value.detach(), gradient)

expected, exact = found[whole]
for way in (micro_batched, averaged):
    value, gradient = found[way]
    apart = (gradient - exact).norm() / exact.norm()
    times = value / expected
    print(f"{way.__name__}: penalty {times:.4f} times the whole batch's, gradients differ by {apart:.1e}")
