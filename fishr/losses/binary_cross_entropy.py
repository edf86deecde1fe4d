"""Logistic loss of one output, or of several labels a sample."""

import torch
from attrs import field, frozen
from attrs.converters import optional as or_none
from attrs.validators import optional
from torch import Tensor
from torch.nn import functional

from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.losses.label_checks import (
    as_columns,
    bounds,
    can_be_read,
    check_columns,
    check_number_of_weights,
    check_weights,
    weights,
)


@traceable
@frozen
class BinaryCrossEntropy:
    """Logistic loss, in nats, summed over the outputs: ℓ_n = −Σ_c (a_c·y_nc·log σ(f_nc) + (1 − y_nc)·log σ(−f_nc)).

    Each value is the sum over the outputs of
    ``torch.nn.functional.binary_cross_entropy_with_logits(pos_weight=a, reduction="none")``.

    Args:
        positive_weights: a, a number of at least 0 for each output; None: 1 each.

    Raises:
        InputError: A weight outside its range. When called: another number of weights than outputs, or labels that do
            not have the logits' shape or are outside 0 to 1; the values of labels on a GPU are not checked.

    Example:
        >>> BinaryCrossEntropy()(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([0.6931, 0.6931])
        >>> BinaryCrossEntropy(positive_weights=(3.0,))(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([0.6931, 2.0794])
    """

    positive_weights: tuple[float, ...] | None = field(
        default=None, converter=or_none(weights), validator=optional(check_weights)
    )

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses [N] of logits [N, C] and targets [N] (for C = 1) or [N, C] from 0 to 1."""
        targets = self.targets(logits, labels)
        weight = None if self.positive_weights is None else logits.new_tensor(self.positive_weights)
        return functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none").sum(1)

    def deltas(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return δ = ∂ℓ/∂f = (1 + (a − 1)·y)·σ(f) − a·y, [N, C]."""
        targets = self.targets(logits, labels)
        if self.positive_weights is None:
            return logits.sigmoid() - targets
        return self.scales(targets) * logits.sigmoid() - logits.new_tensor(self.positive_weights) * targets

    def targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return y [N, C], in the logits' type."""
        targets = as_columns("binary cross-entropy", logits, labels)
        check_number_of_weights("positive_weights", self.positive_weights, logits.shape[1])
        if can_be_read(labels):
            self.check_labels(labels, logits.shape[1])
        return targets

    def scales(self, targets: Tensor) -> Tensor:
        """Return 1 + (a − 1)·y [N, C], the factors of the second derivatives σ(f)(1 − σ(f))."""
        if self.positive_weights is None:
            return torch.ones_like(targets)
        return 1 + (targets.new_tensor(self.positive_weights) - 1) * targets

    def outputs(self, classes: int) -> int:
        """Return 1, the number of head outputs for two classes; refuse more classes."""
        if classes != 2:
            raise InputError(f"binary cross-entropy: got {classes} classes, expected 2; use CrossEntropy()")
        return 1

    def predictions(self, logits: Tensor) -> Tensor:
        """Return [N], class 1 where the single output is positive; [N, C] for several outputs, each on its own."""
        return (logits.squeeze(1) > 0).long()

    def check_labels(self, labels: Tensor, outputs: int) -> None:
        """Refuse targets other than [N] or [N, C] from 0 to 1, with the remedy."""
        check_columns("binary cross-entropy", labels, outputs)
        check_number_of_weights("positive_weights", self.positive_weights, outputs)
        lowest, highest = bounds(labels)
        if lowest >= 0 and highest <= 1:
            return
        values = torch.func.debug_unwrap(labels).unique().tolist()
        remedy = "map them to these, or use CrossEntropy() for more classes"
        if len(values) == 2:
            remedy = f"use (labels == {values[1]}).long()"
        raise InputError(
            f"binary cross-entropy: got labels from {lowest} to {highest}, expected 0 and 1, or probabilities between "
            f"them; {remedy}"
        )
