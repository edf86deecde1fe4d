"""The updates of the optimizers of several heads, of one kind but with rates, decays and counts of their own."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fishr.training.experiment import MODEL
from fishr.training.head_members import Member, Stack
from fishr.training.head_program import Gradients
from fishr.training.learning_rates import StepOptimizer
from fishr.training.optimizers import AdamW
from fishr.training.sgd import SGD


@frozen(eq=False)
class Updated:
    """Weights and states of the optimizers after an update of some heads, with the learning rates that changed."""

    weights: dict[str, Tensor]  # [H, ...]
    moments: dict[str, tuple[Tensor, ...]]
    steps: list[tuple[int, ...]]  # of each head
    rates: list[dict[str, float] | None]


@torch.no_grad()
def updated(heads: Sequence[Member], gradients: Gradients, stack: Stack) -> Updated:
    """Return the update of all heads, by one call of torch's fused kernel for each."""
    # For all heads at once, a bit of a long tensor would depend on its place, and short ones stay in the cache.
    weights = {name: weight.clone() for name, weight in stack.weights.items()}
    moments = {name: tuple(moment.clone() for moment in each) for name, each in stack.moments.items()}
    slopes = gradients.by_name.values()
    moved = [index for index, slope in enumerate(slopes) if slope is not None]
    optimizers, counts = [StepOptimizer(head.experiment, stack.step) for head in heads], list[list[int]]()
    for h, (head, optimizer) in enumerate(zip(heads, optimizers, strict=True)):
        counts.append([*head.state.optimizer.steps])
        if optimizer.fresh:
            counts[h] = [0] * len(counts[h])
            for moment in (moment for each in moments.values() for moment in each):
                moment[h] = 0
        for index in moved:
            counts[h][index] += 1
    # The kernel reads the counts where the weights are.
    given = torch.tensor([[own[index] for index in moved] for own in counts], dtype=torch.float32)
    steps = [of_head.unbind() for of_head in given.to(next(iter(weights.values())).device)]
    targets = [weight for index, weight in enumerate(weights.values()) if index in moved]
    by_head = [_by_head(targets), _by_head([slope.contiguous() for slope in slopes if slope is not None])]
    by_head += [_by_head([each[index] for index in moved]) for each in moments.values()]
    for head, own_steps, *own in zip(heads, steps, *by_head, strict=True):
        _update(head, stack.step, own_steps, *own)
    return Updated(weights, moments, [*map(tuple, counts)], [each.changed_rates for each in optimizers])


def _by_head(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    return [[*own] for own in zip(*(tensor.unbind() for tensor in tensors), strict=True)]


def _update(
    head: Member,
    step: int,
    counts: Sequence[Tensor],
    weights: list[Tensor],
    slopes: list[Tensor],
    *moments: list[Tensor],
) -> None:
    """Change weights and moments of a head in place."""
    # Not through torch.optim, whose checks take longer than the kernel.
    optimizer: Any = head.experiment.optimizer
    rate = head.experiment.learning_rates(step).get(MODEL, optimizer.lr)
    shared = {"lr": rate, "weight_decay": optimizer.weight_decay, "maximize": False}
    if isinstance(optimizer, SGD):
        more = {"momentum": optimizer.momentum, "dampening": 0.0, "nesterov": bool(optimizer.nesterov)}
        buffers = moments[0] if moments else []
        torch._fused_sgd_(weights, slopes, buffers, **shared, **more, is_first_step=False)  # pyright: ignore
    else:
        kernel: Any = torch._fused_adamw_ if isinstance(optimizer, AdamW) else torch._fused_adam_  # pyright: ignore
        more = {"beta1": optimizer.betas[0], "beta2": optimizer.betas[1], "eps": optimizer.eps, "amsgrad": False}
        kernel(weights, slopes, *moments, [], counts, **shared, **more)
