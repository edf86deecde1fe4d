"""Squared error, of regression or of scores for each class."""

import math

from attrs import frozen
from torch import Tensor

from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.losses.label_checks import as_columns, bounds, can_be_read, check_columns


@traceable
@frozen
class SquaredError:
    """Squared error, summed over the outputs: ℓ_n = Σ_c (f_nc − y_nc)².

    Each value is the sum over the outputs of ``torch.nn.functional.mse_loss(reduction="none")``. It predicts no
    classes, so accuracies are NaN.

    Raises:
        InputError: When called on labels that do not have the logits' shape or are not finite; the values of labels on
            a GPU are not checked.

    Example:
        >>> import torch
        >>> SquaredError()(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 2.5]))
        tensor([4.0000, 0.2500])
    """

    predictions = None  # of no class

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses [N] of outputs [N, C] and targets [N] (for C = 1) or [N, C]."""
        return (logits - self._targets(logits, labels)).square().sum(1)

    def deltas(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return δ = ∂ℓ/∂f = 2(f − y), [N, C]."""
        return 2 * (logits - self._targets(logits, labels))

    def outputs(self, classes: int) -> int:
        """Return 1, the number of head outputs for one number a sample."""
        return 1

    def check_labels(self, labels: Tensor, outputs: int) -> None:
        """Refuse targets other than [N] or [N, C] of finite numbers."""
        check_columns("squared error", labels, outputs)
        if not all(map(math.isfinite, bounds(labels))):
            raise InputError("squared error: got labels that are not finite, expected numbers; drop such samples")

    def _targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = as_columns("squared error", logits, labels)
        if can_be_read(labels):
            self.check_labels(labels, logits.shape[1])
        return targets
