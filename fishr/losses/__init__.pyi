from .binary_cross_entropy import BinaryCrossEntropy
from .cross_entropy import CrossEntropy
from .loss import (
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
from .squared_error import SquaredError

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
