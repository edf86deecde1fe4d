"""Metrics of several labels a sample against scikit-learn, on whole and on resampled domains."""

import warnings

import attrs
import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, hamming_loss, roc_auc_score

from fishr.errors import InputError
from fishr.metrics import METRICS, multilabel_classification
from fishr.metrics.bootstrap import BINS


def drawn(samples, labels, rounded=False, rare=False):
    generator = np.random.default_rng(samples)
    truth = (generator.random((samples, labels)) < (0.1 if rare else 0.5)).astype(int)
    logits = generator.normal(size=(samples, labels)) + truth - 1.5 * rare
    logits = logits.round() if rounded else logits
    return 1 / (1 + np.exp(-logits)), truth


def oracle(truth, scores):
    predicted, total = (scores > 0.5).astype(int), 0.0
    confidence, right = np.maximum(scores, 1 - scores), predicted == truth
    for number in range(BINS):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        columns = list(zip(truth.T, predicted.T, strict=True))
        each = [f1_score(true, given) for true, given in columns if true.any() or given.any()]
        constant = any(len(set(true)) == 1 for true in truth.T)
        return {
            "accuracy": 1 - hamming_loss(truth, predicted),
            "balanced_accuracy": np.mean([balanced_accuracy_score(true, given) for true, given in columns]),
            "macro_f1": np.mean(each) if each else None,
            "auroc": None if constant else roc_auc_score(truth, scores, average="macro"),
            "calibration_error": total,
        }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("samples", "labels", "rounded", "rare"), [(40, 3, False, False), (30, 2, True, False), (8, 4, False, True)]
)
def test_values_and_intervals_are_those_of_scikit_learn_on_resampled_samples(samples, labels, rounded, rare):
    scores, truth = drawn(samples, labels, rounded, rare)
    result = multilabel_classification(scores, truth, resamples=60, seed=4)
    assert {name: one.value for name, one in result.metrics.items()} == pytest.approx(oracle(truth, scores), abs=1e-12)
    rows = np.random.default_rng(4).integers(0, samples, (60, samples))
    resampled = [oracle(truth[row], scores[row]) for row in rows]
    for name in METRICS:
        found = [each[name] for each in resampled if each[name] is not None]
        metric = result.metrics[name]
        if result.auroc.reason is None or name != "auroc":
            expected = tuple(np.quantile(found, [0.025, 0.975]))
            assert (metric.low, metric.high) == pytest.approx(expected, abs=1e-12), name


def test_each_label_has_its_own_figures():
    truth, predicted = np.array([[1, 0, 0], [1, 0, 1]]), torch.tensor([[1, 0, 0], [0, 0, 0]])
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.4]])
    found = multilabel_classification(scores, truth, ("cat", "dog", "elk"), predicted, resamples=20)
    assert [attrs.astuple(one) for one in found.classes] == [
        ("cat", 2, 1, 1.0, 0.5, 2 / 3, None),
        ("dog", 0, 0, None, None, None, None),
        ("elk", 1, 0, None, 0.0, 0.0, 1.0),
    ]
    assert found.auroc.reason == "labels 'cat', 'dog' are the same in all samples"
    assert (found.accuracy.value, found.macro_f1.value, found.confusion) == (4 / 6, 1 / 3, ())


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (
            [[1.5, 0.0]],
            [[1, 0]],
            r"got shape \[1, 2\], expected \[N, C\] with numbers from 0 to 1; give logits.sigmoid",
        ),
        ([[0.5, 0.5]], [[2, 0]], r"labels: got int64 of shape \[1, 2\], expected \[1, 2\], each 0 or 1"),
        ([[0.5, 0.5]], [1], r"labels: got int64 of shape \[1\], expected \[1, 2\]"),
    ],
)
def test_input_that_does_not_fit_is_refused(probabilities, labels, message):
    with pytest.raises(InputError, match=message):
        multilabel_classification(np.array(probabilities), np.array(labels))
