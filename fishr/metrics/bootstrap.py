"""Percentile intervals of a domain's metrics, from resamples that are computed many at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

Array = NDArray[Any]

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "calibration_error")
BINS = 15  # of the calibration error
LEVEL = 0.95  # of the intervals
_BLOCK = 16  # resamples at a time


def intervals(
    scores: Array, truth: Array, predicted: Array, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Return the ends of each metric's interval that is defined in some resample."""
    count, classes = scores.shape
    rows = np.arange(count)
    hits, members, named = (
        csr_array((weights, (of, rows)), (classes, count))
        for weights, of in (((truth == predicted) * 1.0, truth), (np.ones(count), truth), (np.ones(count), predicted))
    )
    sums, generator = (
        vstack([hits, members, named, calibration_gaps(scores, truth, predicted)]),
        np.random.default_rng(seed),
    )
    orders = [_order(scores[:, index], truth == index) for index in range(classes)]
    found = list[Array]()
    for start in range(0, resamples, _BLOCK):
        draws = generator.integers(0, count, (min(_BLOCK, resamples - start), count))
        # How often each sample is in each resample, [N, B].
        weights = np.ascontiguousarray(np.stack([np.bincount(draw, minlength=count) for draw in draws]).T, np.float64)
        parts = sums @ weights
        hit, support, predictions = parts[: 3 * classes].reshape(3, classes, -1)
        with np.errstate(invalid="ignore"):
            recall, f1 = hit / support, 2 * hit / (support + predictions)
            areas = np.stack([_area(weights, *order) for order in orders])
        gaps = abs(parts[3 * classes :]).sum(0)
        found.append(
            np.stack([hit.sum(0) / count, np.nanmean(recall, 0), np.nanmean(f1, 0), areas.mean(0), gaps / count])
        )
    ends = dict[str, tuple[float, float]]()
    for name, values in zip(METRICS, np.concatenate(found, 1), strict=True):
        defined = values[~np.isnan(values)]
        if len(defined):
            low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            ends[name] = float(low), float(high)
    return ends


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
