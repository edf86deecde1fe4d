"""Metrics of a classifier on one domain, and the worst domain of several."""

from collections.abc import Mapping, Sequence

import numpy as np
from attrs import frozen
from torch import Tensor

from fishr.errors import InputError
from fishr.metrics.bootstrap import METRICS, Array, calibration_gaps, intervals, of_classes


@frozen
class Metric:
    """A metric of a domain, and the ends of its interval; None: undefined, for ``reason``, or not computed."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@frozen
class ClassMetrics:
    """Metrics of one class against the others, or of one label; None: undefined, as the recall of no samples."""

    name: str
    samples: int
    predicted: int  # samples that are predicted to be of the class
    precision: float | None
    recall: float | None
    f1: float | None
    auroc: float | None


@frozen
class Classification:
    """Metrics on one domain, all from 0 to 1; see ``classification`` and ``multilabel_classification``."""

    samples: int
    accuracy: Metric
    balanced_accuracy: Metric
    macro_f1: Metric
    auroc: Metric
    calibration_error: Metric
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]  # samples [C, C]: a row for each true class; empty for several labels

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics of the whole domain by name."""
        return {name: getattr(self, name) for name in METRICS}


def classification(
    probabilities: Tensor | Array,
    labels: Tensor | Array,
    classes: Sequence[str] | None = None,
    predictions: Tensor | Array | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Classification:
    """Return the metrics of a classifier on one domain, with 95 % bootstrap intervals.

    Accuracy; balanced accuracy, the mean recall of the classes that have samples; macro-F1, the mean F1 of the classes
    that have samples or predictions; AUROC, the mean over all classes of the area under the curve of one class against
    the others; the expected calibration error Σ_b |Σ_{n∈b} (1[ŷ_n = y_n] − p_n[ŷ_n])| / N over 15 bins b of equal width
    of the predicted class's probability. AUROC is undefined if a class has no sample.

    An interval has the 2.5 and 97.5 percentiles over resamples of the N samples. Resample b takes row b of
    ``default_rng(seed).integers(0, N, (resamples, N))``; those in which AUROC is undefined do not count for it.
    Calibration errors of resamples tend to be larger than that of the domain, so its interval can lie above it.

    Args:
        probabilities: [N, C], C ≥ 2; each row sums to 1.
        labels: [N] whole numbers from 0 to C − 1.
        classes: Names of the C classes; None: their numbers.
        predictions: [N] predicted classes; None: those of the largest probability.
        resamples: Number of resamples; 0: no intervals.
        seed: Seed of the resamples.

    Raises:
        InputError: Shapes, labels or predictions that do not fit, rows that are not probabilities, or no sample.

    Example:
        >>> result = classification(np.array([[0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]), np.array([0, 1, 1]))
        >>> round(result.accuracy.value, 3), result.balanced_accuracy.value, result.auroc.value
        (0.667, 0.75, 1.0)
        >>> result.confusion
        ((1, 0), (1, 1))

    Source:
        Efron and Tibshirani, An introduction to the bootstrap, 1993 (percentile intervals); Guo et al., On calibration
        of modern neural networks, ICML 2017 (calibration error).
    """
    scores, truth, names = _checked(probabilities, labels, classes)
    predicted = scores.argmax(1) if predictions is None else _whole(predictions, "predictions", scores.shape)
    per_class, confusion = _per_class(scores, truth, predicted, names)
    values = {
        "accuracy": float((truth == predicted).mean()),
        "balanced_accuracy": mean_of_defined([one.recall for one in per_class]),
        "macro_f1": mean_of_defined([one.f1 for one in per_class]),
        "auroc": None
        if any(one.auroc is None for one in per_class)
        else mean_of_defined([one.auroc for one in per_class]),
        "calibration_error": float(abs(calibration_gaps(scores, truth, predicted).sum(1)).sum()) / len(truth),
    }
    ends = intervals(of_classes(scores, truth, predicted), len(truth), resamples, seed) if resamples else {}
    metrics = {name: Metric(value, *ends.get(name, (None, None))) for name, value in values.items()}
    if values["auroc"] is None:
        lacking = ", ".join(repr(one.name) for one in per_class if not one.samples)
        metrics["auroc"] = Metric(None, reason=f"no sample of {lacking}")
    return Classification(len(truth), **metrics, classes=per_class, confusion=confusion)


def worst(domains: Mapping[str, Classification]) -> dict[str, str]:
    """Return the name of the domain with the worst value of each metric that is defined on some domain.

    Example:
        >>> right, wrong = (classification(np.eye(2)[rows], np.array([0, 1]), resamples=0) for rows in ([0, 1], [0, 0]))
        >>> worst({"photo": right, "sketch": wrong})["accuracy"]
        'sketch'
    """
    found = dict[str, str]()
    for metric in METRICS:
        sign = -1 if metric == "calibration_error" else 1
        values = {name: each.metrics[metric].value for name, each in domains.items()}
        defined = {name: sign * value for name, value in values.items() if value is not None}
        if defined:
            found[metric] = min(defined, key=defined.__getitem__)
    return found


def _checked(
    probabilities: Tensor | Array, labels: Tensor | Array, classes: Sequence[str] | None
) -> tuple[Array, Array, Sequence[str]]:
    scores = as_array(probabilities).astype(np.float64)
    if scores.ndim != 2 or scores.shape[0] < 1 or scores.shape[1] < 2:
        raise InputError(f"probabilities: got shape {list(scores.shape)}, expected [N, C] with N ≥ 1 and C ≥ 2")
    names = list(map(str, range(scores.shape[1]))) if classes is None else classes
    if len(names) != scores.shape[1]:
        raise InputError(f"classes: got {len(names)} names, expected {scores.shape[1]}, one for each column")
    sums = scores.sum(1)
    if not (scores >= 0).all() or not (abs(sums - 1) < 1e-3).all():
        raise InputError(
            f"probabilities: got rows from {scores.min():.3g} to {scores.max():.3g} that sum to {sums.min():.3g} to "
            f"{sums.max():.3g}, expected numbers from 0 to 1 that sum to 1; give logits.softmax(1)"
        )
    return scores, _whole(labels, "labels", scores.shape), names


def _whole(values: Tensor | Array, what: str, shape: tuple[int, ...]) -> Array:
    """Return class indices [N] of probabilities of a shape [N, C]."""
    found = as_array(values)
    if found.dtype.kind not in "iu" or found.shape != shape[:1]:
        raise InputError(f"{what}: got {found.dtype} of shape {list(found.shape)}, expected {shape[0]} whole numbers")
    if found.min() < 0 or found.max() >= shape[1]:
        raise InputError(
            f"{what}: got {found.min()} to {found.max()}, expected 0 to {shape[1] - 1}, for {shape[1]} classes"
        )
    return found.astype(np.int64)


def as_array(values: Tensor | Array) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _per_class(
    scores: Array, truth: Array, predicted: Array, names: Sequence[str]
) -> tuple[tuple[ClassMetrics, ...], tuple[tuple[int, ...], ...]]:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

    numbers = range(len(names))
    confusion = confusion_matrix(truth, predicted, labels=numbers)
    rates = precision_recall_fscore_support(truth, predicted, labels=numbers, zero_division=np.nan)[:3]  # pyright: ignore[reportArgumentType]
    found = list[ClassMetrics]()
    for number, name in enumerate(names):
        samples = int(confusion[number].sum())
        auroc = float(roc_auc_score(truth == number, scores[:, number])) if 0 < samples < len(truth) else None
        precision, recall, f1 = (None if np.isnan(one[number]) else float(one[number]) for one in np.asarray(rates))
        predictions = int(confusion[:, number].sum())
        found.append(ClassMetrics(name, samples, predictions, precision, recall, f1, auroc))
    return tuple(found), tuple(map(tuple, confusion.tolist()))


def mean_of_defined(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are defined, None if none is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
