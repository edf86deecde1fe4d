"""Per-sample losses with their derivative by the logits in closed form.

Gradient statistics are of each sample's unscaled loss, so a loss here never averages over samples.
"""

from fishr.losses.binary_cross_entropy import BinaryCrossEntropy
from fishr.losses.cross_entropy import CrossEntropy
from fishr.losses.loss import (
    Loss,
    accuracy_name,
    check_labels,
    labeled_in_domains,
    labeled_rows,
    labeled_samples,
    loss_deltas,
    outputs_of,
    per_sample_losses,
    predictions_of,
    predicts_classes,
    shares_correct,
)
from fishr.losses.squared_error import SquaredError

__all__ = [
    "BinaryCrossEntropy",
    "CrossEntropy",
    "Loss",
    "SquaredError",
    "accuracy_name",
    "check_labels",
    "labeled_in_domains",
    "labeled_rows",
    "labeled_samples",
    "loss_deltas",
    "outputs_of",
    "per_sample_losses",
    "predictions_of",
    "predicts_classes",
    "shares_correct",
]
