"""Weights as named tensors, planes through them, and the scores at the points of a plane."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.losses import Loss, per_sample_losses, shares_correct

Weights: TypeAlias = dict[str, Tensor]
"""Parameters, and possibly buffers, of a module by name; an alias of ``dict[str, Tensor]``."""
Samples: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Inputs of a module and their labels, for each domain; an alias of ``Sequence[tuple[Tensor, Tensor]]``."""


def weights_of(module: nn.Module, buffers: bool = False) -> Weights:
    """Return the trainable parameters of a module by name, detached.

    Args:
        buffers: also return floating-point buffers, such as running means.

    Raises:
        InputError: no parameter requires grad.

    Example:
        >>> list(weights_of(nn.Linear(3, 2)))
        ['weight', 'bias']
    """
    found = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    if not found:
        raise InputError(f"landscape: {type(module).__name__} has no parameter that requires grad, expected one")
    if buffers:
        found |= {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    return found


def flattened(weights: Weights) -> Tensor:
    """Return [P], float64, in the order of the names."""
    return torch.cat([value.detach().flatten().double() for value in weights.values()])


def like(flat: Tensor, weights: Weights) -> Weights:
    """Split a [P] vector into tensors with the names, shapes and dtypes of the weights."""
    parts = flat.split([value.numel() for value in weights.values()])
    named = zip(weights.items(), parts, strict=True)
    return {name: part.reshape(value.shape).to(value) for (name, value), part in named}


def check_alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Raise InputError if a name or shape differs."""
    for name in [*one, *(name for name in other if name not in one)]:
        first, second = (tuple(each[name].shape) if name in each else "none" for each in (one, other))
        if first != second:
            raise InputError(
                f"parameter {name}: got shapes {first} and {second}, expected one shape; "
                "a landscape joins weights of one architecture"
            )


@frozen(eq=False)
class Plane:
    """θ(α, β) = center + α·first + β·second.

    Args:
        center: θ at the origin.
        first: direction of α.
        second: direction of β; None on a line.

    Raises:
        InputError: a direction differs from the center in a name or shape.

    Example:
        >>> plane = Plane({"w": torch.ones(2)}, {"w": torch.tensor([0.0, 2.0])})
        >>> plane.at(0.5, 0.0)["w"]
        tensor([1., 2.])
    """

    center: Weights
    first: Weights
    second: Weights | None = None

    def __attrs_post_init__(self) -> None:
        for direction in (self.first, self.second or self.first):
            check_alike(direction, self.center)

    def at(self, x: float, y: float) -> Weights:
        """Return the weights of a point."""
        moved = {name: torch.add(value, self.first[name], alpha=x) for name, value in self.center.items()}
        if self.second is None:
            return moved
        return {name: torch.add(value, self.second[name], alpha=y) for name, value in moved.items()}

    @property
    def centre(self) -> Weights:
        """The former spelling of ``center``."""
        return self.center


@frozen(eq=False)
class Scores:
    """Losses and accuracies at each point of a grid.

    Args:
        losses: [K, nx, ny], float64, mean loss of each domain.
        accuracies: [K, nx, ny], float64, from 0 to 1; NaN for a loss that predicts no class.
    """

    losses: Tensor
    accuracies: Tensor


def total_scores(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Return [2], float64: the summed loss, and the accuracy times the number of samples."""
    value = per_sample_losses(loss, logits, labels).sum(dtype=torch.float64)
    return torch.stack([value, shares_correct(loss, logits, labels).sum(dtype=torch.float64)])
