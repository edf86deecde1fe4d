"""Fishr's training step as it was published, made to run: BackPACK's BatchGrad of the head, then variances."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from backpack import backpack, extend
from backpack.extensions import BatchGrad
from torch import Tensor, nn

from fishr.training.model import Model
from fishr.types import DomainBatch

# The published call asks for the gradients of the head's parameters alone, and then BackPACK saves nothing. Two ways
# out: to ask for the features' gradient, or for every parameter's.
TO_FEATURES, TO_ALL = "Fishr by BatchGrad, gradient of features", "Fishr by BatchGrad, loss.backward()"


def published_step(
    model: Model, batch: DomainBatch, way: str, ema: float, weight: float, lr: float
) -> Callable[[], float]:
    """A function that makes the next step of a training of its own, and returns the penalty.

    Args:
        model: with its first weights; changed.
        batch: of every step.
        way: one of the two above.
        ema: of the moving average of variances.
        weight: of the penalty.
        lr: of Adam.
    """
    featurizer, head = model.featurizer, extend(model.head)
    criterion = extend(nn.CrossEntropyLoss(reduction="sum"))
    optimizer = torch.optim.Adam(model.parameters().values(), lr=lr)
    averages: list[Any] = [0.0, 0.0]

    def step() -> float:
        features = featurizer(batch.inputs)
        loss = criterion(head(features), batch.labels)
        with backpack(BatchGrad()), warnings.catch_warnings():
            # Of gradients that hold a graph; they are dropped below.
            warnings.simplefilter("ignore", UserWarning)
            if way == TO_ALL:
                loss.backward(retain_graph=True, create_graph=True)
            else:
                torch.autograd.grad(loss, [features], create_graph=True)
        gradients = [parameter.grad_batch for parameter in head.parameters()]
        for parameter in head.parameters():
            del parameter.grad_batch
        optimizer.zero_grad()
        penalty = _penalty(gradients, batch.sizes, averages, ema)
        (loss / len(batch.labels) + weight * penalty).backward()
        optimizer.step()
        return float(penalty.detach())

    return step


def _penalty(gradients: list[Tensor], sizes: tuple[int, ...], averages: list[Any], ema: float) -> Tensor:
    """The distance of the domains' averaged variances from their mean, per domain and parameter."""
    statistics = list[Tensor]()
    for index, by_sample in enumerate(gradients):
        variance = torch.stack([part.var(0, correction=0) for part in by_sample.flatten(1).split(sizes)])
        average = ema * averages[index] + (1 - ema) * variance
        averages[index] = average.detach()
        statistics.append(average / (1 - ema))
    statistic = torch.cat(statistics, 1)
    return (statistic - statistic.mean(0)).square().mean()
