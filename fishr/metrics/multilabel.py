"""Metrics of several labels a sample on one domain."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from fishr.errors import InputError
from fishr.metrics.bootstrap import Array, calibration_gaps_of_labels, intervals, of_labels
from fishr.metrics.domain_metrics import Classification, ClassMetrics, Metric, as_array, mean_of_defined


def multilabel_classification(
    probabilities: Tensor | Array,
    labels: Tensor | Array,
    names: Sequence[str] | None = None,
    predictions: Tensor | Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Classification:
    """Return the metrics of a classifier that gives each sample several labels, with 95 % bootstrap intervals.

    Accuracy, the share of the N·C labels that are right; balanced accuracy, the mean over labels of the mean recall of
    the samples with and of those without the label; macro-F1, the mean F1 of the labels that have samples or
    predictions; AUROC, the mean over all labels; the expected calibration error over all N·C labels, of the probability
    of what is predicted. AUROC is undefined if no sample, or each one, has a label. The intervals are those of
    ``classification``; a resample takes all labels of a sample.

    Args:
        probabilities: [N, C] of each label, from 0 to 1.
        labels: [N, C], 0 or 1.
        names: Names of the C labels; None: their numbers.
        predictions: [N, C], 0 or 1; None: 1 where a probability is above 1/2.
        resamples: Number of resamples; 0: no intervals.
        seed: Seed of the resamples.

    Returns:
        Metrics whose ``classes`` are the labels, without confusion.

    Raises:
        InputError: Shapes, probabilities, labels or predictions that do not fit, or no sample.

    Example:
        >>> found = multilabel_classification(np.array([[0.9, 0.2], [0.4, 0.6]]), np.array([[1, 0], [1, 1]]))
        >>> found.accuracy.value, found.classes[0].recall, found.auroc.reason
        (0.75, 0.5, "label '0' is the same in all samples")

    Source:
        scikit-learn has the same as ``f1_score`` and ``roc_auc_score`` with ``average="macro"``,
        ``balanced_accuracy_score`` of each label, and 1 − ``hamming_loss``.
    """
    scores = as_array(probabilities).astype(np.float64)
    if scores.ndim != 2 or not scores.size or not ((scores >= 0) & (scores <= 1)).all():
        raise InputError(
            f"probabilities: got shape {list(scores.shape)}, expected [N, C] with numbers from 0 to 1; give "
            "logits.sigmoid()"
        )
    names = list(map(str, range(scores.shape[1]))) if names is None else names
    if len(names) != scores.shape[1]:
        raise InputError(f"names: got {len(names)}, expected {scores.shape[1]}, one for each column")
    truth = _binary(labels, "labels", scores.shape)
    predicted = (
        (scores > 0.5).astype(np.int64) if predictions is None else _binary(predictions, "predictions", truth.shape)
    )
    return _measured(scores, truth, predicted, names, resamples, seed)


def _measured(
    scores: Array, truth: Array, predicted: Array, names: Sequence[str], resamples: int, seed: int
) -> Classification:
    from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

    found, balanced = list[ClassMetrics](), list[float]()
    for name, score, true, given in zip(names, scores.T, truth.T, predicted.T, strict=True):
        rates = precision_recall_fscore_support(true, given, labels=(0, 1), zero_division=np.nan)[:3]  # pyright: ignore[reportArgumentType]
        precision, recall, f1 = (None if np.isnan(rate[1]) else float(rate[1]) for rate in np.asarray(rates))
        auroc = float(roc_auc_score(true, score)) if true.min() < true.max() else None
        found.append(ClassMetrics(name, int(true.sum()), int(given.sum()), precision, recall, f1, auroc))
        balanced.append(float(np.nanmean(rates[1])))
    constant = [repr(one.name) for one in found if one.auroc is None]
    values = {
        "accuracy": float((truth == predicted).mean()),
        "balanced_accuracy": float(np.mean(balanced)),
        "macro_f1": mean_of_defined([one.f1 for one in found]),
        "auroc": None if constant else mean_of_defined([one.auroc for one in found]),
        "calibration_error": float(abs(calibration_gaps_of_labels(scores, truth, predicted).sum(1)).sum())
        / scores.size,
    }
    ends = intervals(of_labels(scores, truth, predicted), len(truth), resamples, seed) if resamples else {}
    metrics = {name: Metric(value, *ends.get(name, (None, None))) for name, value in values.items()}
    if constant:
        which = "label" if len(constant) == 1 else "labels"
        verb = "is" if len(constant) == 1 else "are"
        metrics["auroc"] = Metric(None, reason=f"{which} {', '.join(constant)} {verb} the same in all samples")
    return Classification(len(truth), **metrics, classes=tuple(found), confusion=())


def _binary(values: Tensor | Array, what: str, shape: tuple[int, ...]) -> Array:
    found = as_array(values)
    if found.shape != shape or not np.isin(found, (0, 1)).all():
        raise InputError(f"{what}: got {found.dtype} of shape {list(found.shape)}, expected {list(shape)}, each 0 or 1")
    return found.astype(np.int64)
