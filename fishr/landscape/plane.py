"""A plane of weights, and what is measured at its points."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from attrs import frozen
from torch import Tensor

from fishr.landscape.weights import Weights, check_alike, shifted
from fishr.losses import Loss, per_sample_losses

# Of each domain, what the module reads and what the loss reads.
Samples: TypeAlias = Sequence[tuple[Tensor, Tensor]]


@frozen(eq=False)
class Plane:
    """θ(α, β) = centre + α·first + β·second.

    Args:
        centre: θ at the origin.
        first: direction of α.
        second: direction of β; None on a line.

    Raises:
        InputError: a direction has other names or shapes than the centre.

    Example:
        >>> plane = Plane({"w": torch.ones(2)}, {"w": torch.tensor([0.0, 2.0])})
        >>> plane.at(0.5, 0.0)["w"]
        tensor([1., 2.])
    """

    centre: Weights
    first: Weights
    second: Weights | None = None

    def __attrs_post_init__(self) -> None:
        for direction in (self.first, self.second or self.first):
            check_alike(direction, self.centre)

    def at(self, x: float, y: float) -> Weights:
        """The weights of a point."""
        return shifted(self.centre, (x, self.first), *([] if self.second is None else [(y, self.second)]))


@frozen(eq=False)
class Scores:
    """What is measured at each point of a grid.

    Args:
        losses: [K, nx, ny], float64, mean loss of each domain.
        accuracies: [K, nx, ny], float64, shares from 0 to 1; NaN for a loss that predicts nothing.

    Example:
        >>> Scores(torch.zeros(2, 5, 3), torch.ones(2, 5, 3)).losses.shape
        torch.Size([2, 5, 3])
    """

    losses: Tensor
    accuracies: Tensor


def total_scores(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """[2], float64: the sum of the losses, and the mean share of right predictions times the number of samples.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> total_scores(CrossEntropy(), torch.zeros(3, 2), torch.tensor([0, 0, 1]))
        tensor([2.0794, 2.0000], dtype=torch.float64)
    """
    value = per_sample_losses(loss, logits, labels).sum(dtype=torch.float64)
    return torch.stack([value, _right(loss, logits, labels).flatten(1).mean(1).sum()])


def _right(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    predict: Callable[[Tensor], Tensor] | None = getattr(loss, "predictions", None)
    if predict is None:
        return logits.new_full((len(logits), 1), torch.nan, dtype=torch.float64)
    right = predict(logits).reshape(labels.shape) == labels
    return right.double().reshape(len(logits), -1)
