"""Losses, with labels for so many samples, and torch's own ones beside them."""

from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError

FLOAT64 = torch.float64


@frozen
class LossCase:
    """A loss: how many head outputs it reads, and labels for so many samples."""

    loss: Loss
    outputs: int
    labels: Callable[[int], Tensor]


def squared(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss of one's own, with curvature and without closed form of its deltas."""
    return ((logits.sigmoid() - labels) ** 2 * torch.tensor([1.0, 3.0], dtype=logits.dtype)).sum(1)


LOSSES: dict[str, LossCase] = {
    "cross-entropy": LossCase(CrossEntropy(), 3, lambda n: torch.randint(3, (n,))),
    "binary": LossCase(BinaryCrossEntropy(), 1, lambda n: torch.randint(2, (n,))),
    "multi-label": LossCase(BinaryCrossEntropy(), 2, lambda n: torch.randint(2, (n, 2))),
    "squared": LossCase(squared, 2, lambda n: torch.randn(n, 2, dtype=FLOAT64)),
}


def soft_labels(samples: int) -> Tensor:
    return torch.randn(samples, 3, dtype=FLOAT64).softmax(1)


# Settings of the package's losses; all have closed forms.
WEIGHTS = (0.5, 2.0, 1.5)


MORE_LOSSES: dict[str, LossCase] = {
    "smoothed": LossCase(CrossEntropy(0.2), 3, lambda n: torch.randint(3, (n,))),
    "class weights": LossCase(CrossEntropy(class_weights=WEIGHTS), 3, lambda n: torch.randint(3, (n,))),
    "smoothed with class weights": LossCase(CrossEntropy(0.2, WEIGHTS), 3, lambda n: torch.randint(3, (n,))),
    "soft labels": LossCase(CrossEntropy(), 3, soft_labels),
    "smoothed soft labels with class weights": LossCase(CrossEntropy(0.2, WEIGHTS), 3, soft_labels),
    "positive weight": LossCase(BinaryCrossEntropy((3.0,)), 1, lambda n: torch.randint(2, (n,))),
    "multi-label with weights": LossCase(BinaryCrossEntropy(WEIGHTS), 3, lambda n: torch.rand(n, 3, dtype=FLOAT64)),
    "squared error": LossCase(SquaredError(), 1, lambda n: torch.randn(n, dtype=FLOAT64)),
    "squared error of several": LossCase(SquaredError(), 3, lambda n: torch.randn(n, 3, dtype=FLOAT64)),
}


EVERY_LOSS = LOSSES | MORE_LOSSES


def torchs(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Torch's own loss of a loss of the package, without reduction over the samples."""
    columns = labels.view(-1, 1) if labels.ndim == 1 else labels
    if isinstance(loss, SquaredError):
        return nn.functional.mse_loss(logits, columns, reduction="none").sum(1)
    if isinstance(loss, BinaryCrossEntropy):
        weight = loss.positive_weights and torch.tensor(loss.positive_weights, dtype=logits.dtype)
        return nn.functional.binary_cross_entropy_with_logits(
            logits, columns.to(logits.dtype), pos_weight=weight, reduction="none"
        ).sum(1)
    assert isinstance(loss, CrossEntropy)
    weight = loss.class_weights and torch.tensor(loss.class_weights, dtype=logits.dtype)
    smoothing, ignored = loss.label_smoothing or 0.0, -100 if loss.ignore_index is None else loss.ignore_index
    return nn.functional.cross_entropy(
        logits, labels, weight, reduction="none", label_smoothing=smoothing, ignore_index=ignored
    )
