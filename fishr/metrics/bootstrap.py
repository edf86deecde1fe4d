"""Percentile intervals of a domain's metrics, from resamples that are computed many at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

Array = NDArray[Any]
Statistic = Callable[
    [Array], Array
]  # how often each sample is in each resample, [N, B], to the METRICS of each, [M, B]

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "calibration_error")
"""Names of the metrics of a classifier on a domain, in the order of tables."""
BINS = 15  # of the calibration error
LEVEL = 0.95  # of the intervals
_BLOCK = 16  # resamples at a time


def intervals(statistic: Statistic, count: int, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return the ends of each metric's interval over resamples of so many samples, if it is defined in one of them."""
    generator, found = np.random.default_rng(seed), list[Array]()
    for start in range(0, resamples, _BLOCK):
        draws = generator.integers(0, count, (min(_BLOCK, resamples - start), count))
        weights = np.stack([np.bincount(draw, minlength=count) for draw in draws]).T
        with np.errstate(invalid="ignore"):
            found.append(statistic(np.ascontiguousarray(weights, np.float64)))
    ends = dict[str, tuple[float, float]]()
    for name, values in zip(METRICS, np.concatenate(found, 1), strict=True):
        defined = values[~np.isnan(values)]
        if len(defined):
            low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            ends[name] = float(low), float(high)
    return ends


def of_classes(scores: Array, truth: Array, predicted: Array) -> Statistic:
    """Return the metrics of resamples of samples with a class each, of probabilities [N, C] and classes [N]."""
    count, classes = scores.shape
    rows = np.arange(count)
    hits, members, named = (
        csr_array((weights, (of, rows)), (classes, count))
        for weights, of in (((truth == predicted) * 1.0, truth), (np.ones(count), truth), (np.ones(count), predicted))
    )
    sums = vstack([hits, members, named, calibration_gaps(scores, truth, predicted)])
    orders = [_order(scores[:, index], truth == index) for index in range(classes)]

    def metrics(weights: Array) -> Array:
        parts = sums @ weights
        hit, support, predictions = parts[: 3 * classes].reshape(3, classes, -1)
        recall, f1 = hit / support, 2 * hit / (support + predictions)
        areas = np.stack([_area(weights, *order) for order in orders])
        gaps = abs(parts[3 * classes :]).sum(0)
        return np.stack([hit.sum(0) / count, np.nanmean(recall, 0), np.nanmean(f1, 0), areas.mean(0), gaps / count])

    return metrics


def of_labels(scores: Array, truth: Array, predicted: Array) -> Statistic:
    """Return the metrics of resamples of samples with C labels each, of probabilities and labels [N, C], 0 or 1."""
    count, labels = scores.shape
    hits, members, named = ((one * 1.0).T for one in (truth & predicted, truth, predicted))
    gaps = calibration_gaps_of_labels(scores, truth, predicted)
    orders = [_order(scores[:, index], truth[:, index] == 1) for index in range(labels)]

    def metrics(weights: Array) -> Array:
        hit, support, predictions = (one @ weights for one in (hits, members, named))
        misses = count - support - predictions + hit  # right ones among the samples without the label
        recalls = np.nanmean([hit / support, misses / (count - support)], 0)
        some = support + predictions  # 0 for a label that neither occurs nor is predicted, which has no F1
        f1 = np.divide(2 * hit, some, where=some > 0, out=np.zeros_like(some)).sum(0) / (some > 0).sum(0)
        areas = np.stack([_area(weights, *order) for order in orders])
        pairs = count * labels
        gap = abs(gaps @ weights).sum(0)
        return np.stack([(hit + misses).sum(0) / pairs, recalls.mean(0), f1, areas.mean(0), gap / pairs])

    return metrics


def _order(scores: Array, positive: Array) -> tuple[Array, Array, Array, Array]:
    """Return positive samples, negative ones in ascending order, and how many of these are below and not above each."""
    others = np.flatnonzero(~positive)
    others = others[np.argsort(scores[others])]
    here = np.flatnonzero(positive)
    below, reached = (np.searchsorted(scores[others], scores[here], side) for side in ("left", "right"))
    return here, others, below, reached


def _area(weights: Array, here: Array, others: Array, below: Array, reached: Array) -> Array:
    """Return the area under the ROC curve for each column of weights [N, B] of the samples."""
    summed = np.zeros((len(others) + 1, weights.shape[1]))
    np.cumsum(weights[others], 0, out=summed[1:])
    pairs = np.einsum("nb,nb->b", weights[here], summed[below] + summed[reached])
    return pairs / (2 * weights[here].sum(0) * summed[-1])


def calibration_gaps(scores: Array, truth: Array, predicted: Array) -> csr_array:
    """Return 1[ŷ_n = y_n] − p_n[ŷ_n] at the bin of its sample, [BINS, N]."""
    rows = np.arange(len(truth))
    confidence = scores[rows, predicted]
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return csr_array(((truth == predicted) - confidence, (bins, rows)), (BINS, len(truth)))


def calibration_gaps_of_labels(scores: Array, truth: Array, predicted: Array) -> csr_array:
    """Return the sum of 1[ŷ = y] − p[ŷ] over a sample's labels in each bin, [BINS, N]."""
    count, labels = scores.shape
    both = np.stack([1 - scores.ravel(), scores.ravel()], 1)
    of_pairs = calibration_gaps(both, truth.ravel(), predicted.ravel())
    return of_pairs @ csr_array((np.ones(count * labels), (np.arange(count * labels), np.arange(count).repeat(labels))))
