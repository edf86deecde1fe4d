"""Metrics against scikit-learn on whole and on resampled domains, and their laws."""

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from fishr.errors import InputError
from fishr.metrics import METRICS, classification, worst
from fishr.metrics.bootstrap import BINS


def calibration_error(truth, scores):
    """The definition, bin by bin."""
    confidence, right = scores.max(1), scores.argmax(1) == truth
    total = 0.0
    for number in range(BINS):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def area(truth, scores):
    """The share of pairs of a positive and a negative sample that are in order, a tie being half of one."""
    one, other = scores[truth][:, None], scores[~truth][None]
    return ((one > other) + 0.5 * (one == other)).mean()


def oracle(truth, scores):
    predicted = scores.argmax(1)
    counts = np.bincount(truth, minlength=scores.shape[1])
    return {
        "accuracy": accuracy_score(truth, predicted),
        "balanced_accuracy": np.mean([np.mean(predicted[truth == c] == c) for c in np.flatnonzero(counts)]),
        "macro_f1": f1_score(truth, predicted, average="macro"),
        "auroc": np.mean([area(truth == c, scores[:, c]) for c in range(len(counts))]) if counts.all() else None,
        "calibration_error": calibration_error(truth, scores),
    }


def drawn(seed, samples=40, classes=3, rounded=False):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, samples)
    logits = generator.normal(size=(samples, classes)) + 1.5 * np.eye(classes)[truth]
    # Rounded logits tie.
    logits = logits.round() if rounded else logits
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), truth


def values(result):
    return {name: metric.value for name, metric in result.metrics.items()}


@pytest.mark.parametrize(
    ("samples", "classes", "rounded"), [(40, 3, False), (40, 3, True), (9, 5, False), (30, 2, True)]
)
def test_values_and_intervals_are_those_of_scikit_learn_on_resampled_samples(samples, classes, rounded):
    scores, truth = drawn(classes, samples, classes, rounded)
    result = classification(scores, truth, resamples=60, seed=4)
    assert values(result) == pytest.approx(oracle(truth, scores), abs=1e-12)
    rows = np.random.default_rng(4).integers(0, samples, (60, samples))
    resampled = [oracle(truth[row], scores[row]) for row in rows]
    for name in METRICS:
        found = [each[name] for each in resampled if each[name] is not None]
        metric = result.metrics[name]
        assert (metric.low, metric.high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])), abs=1e-12), name


def test_names_that_scikit_learn_has_mean_the_same():
    scores, truth = drawn(0, 200, 4)
    result, predicted = classification(scores, truth, resamples=0), scores.argmax(1)
    assert result.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-12)
    assert result.auroc.value == pytest.approx(roc_auc_score(truth, scores, multi_class="ovr"), abs=1e-12)
    assert result.accuracy.low is None


def test_resamples_are_the_same_in_blocks(monkeypatch):
    scores, truth = drawn(1)
    whole = classification(scores, truth, resamples=50)
    monkeypatch.setattr("fishr.metrics.bootstrap._BLOCK", 7)
    for name, metric in classification(scores, truth, resamples=50).metrics.items():
        assert attrs.astuple(metric)[:3] == pytest.approx(attrs.astuple(whole.metrics[name])[:3], abs=1e-12), name


@given(st.integers(0, 1000), st.integers(2, 5), st.integers(1, 30), st.booleans())
@settings(max_examples=25)
def test_the_order_of_samples_and_of_classes_does_not_matter(seed, classes, samples, rounded):
    scores, truth = drawn(seed, samples, classes, rounded)
    one = classification(scores, truth, resamples=0)
    order = np.random.default_rng(seed).permutation(samples)
    assert values(classification(scores[order], truth[order], resamples=0)) == pytest.approx(values(one), abs=1e-12)
    if not rounded:  # Of classes that tie, the first is predicted.
        names = np.random.default_rng(seed).permutation(classes)
        other = classification(scores[:, names], np.argsort(names)[truth], [str(n) for n in names], resamples=0)
        assert values(other) == pytest.approx(values(one), abs=1e-12)
        assert {c.name: c.samples for c in other.classes} == {c.name: c.samples for c in one.classes}


@given(st.integers(2, 5), st.integers(1, 4))
@settings(max_examples=10)
def test_a_perfect_predictor_scores_one_and_a_constant_one_as_by_chance(classes, each):
    truth = np.repeat(np.arange(classes), each)
    perfect = classification(np.eye(classes)[truth], truth, resamples=20)
    for name, metric in perfect.metrics.items():
        expected = 0.0 if name == "calibration_error" else 1.0
        assert metric.value == pytest.approx(expected), name
        # With few samples, each resample may lack a class.
        assert name == "auroc" or (metric.low, metric.high) == pytest.approx((expected, expected)), name
    assert perfect.confusion == tuple(map(tuple, (each * np.eye(classes, dtype=int)).tolist()))
    constant = classification(np.full((len(truth), classes), 1 / classes), truth, resamples=0)
    assert values(constant) == pytest.approx(
        {
            "accuracy": 1 / classes,
            "balanced_accuracy": 1 / classes,
            "macro_f1": 2 / (classes + 1) / classes,
            "auroc": 0.5,
            "calibration_error": 0.0,
        }
    )
    first, *others = constant.classes
    assert (first.precision, first.recall) == (pytest.approx(1 / classes), 1.0)
    assert {(one.precision, one.recall) for one in others} == {(None, 0.0)}
    assert [one.predicted for one in constant.classes] == [len(truth)] + [0] * (classes - 1)


def test_auroc_is_undefined_without_samples_of_a_class_and_says_so():
    scores, truth = drawn(2, 30, 3)
    kept = truth != 1
    result = classification(scores[kept], truth[kept], ["cat", "dog", "owl"])
    assert result.auroc.value is None
    assert (result.auroc.low, result.auroc.high, result.auroc.reason) == (None, None, "no sample of 'dog'")
    cat, dog, _ = result.classes
    assert cat.auroc == pytest.approx(roc_auc_score(truth[kept] == 0, scores[kept, 0]))
    assert (dog.samples, dog.recall, dog.auroc) == (0, None, None)
    assert result.balanced_accuracy.value == pytest.approx(np.mean([c.recall for c in result.classes if c.samples]))


def test_bins_of_the_calibration_error_have_their_upper_ends():
    """0.6 = 9/15 shares a bin with 0.55, where the gaps cancel in part, and not with 0.61."""
    for sure, expected in ((0.55, (0.4 - 0.55) / 2), (0.61, (0.4 + 0.61) / 2)):
        scores = np.array([[0.6, 0.4], [sure, 1 - sure]])
        result = classification(scores, np.array([0, 1]), resamples=0)
        assert result.calibration_error.value == pytest.approx(abs(expected))


def test_predictions_of_ones_own_decide():
    scores, truth = torch.tensor([[0.6, 0.4], [0.6, 0.4]]), torch.tensor([0, 1])
    result = classification(scores, truth, predictions=truth, resamples=0)
    assert (result.accuracy.value, result.auroc.value) == (1.0, 0.5)
    assert result.calibration_error.value == pytest.approx((0.4 + 0.6) / 2)


def test_the_worst_domain_may_be_another_one_for_each_metric():
    sure, unsure = np.array([[0.99, 0.01], [0.99, 0.01]]), np.array([[0.4, 0.6], [0.51, 0.49]])
    domains = {"a": classification(sure, np.array([0, 1]), resamples=0)}
    domains["b"] = classification(unsure, np.array([0, 1]), resamples=0)
    domains["c"] = classification(sure, np.array([0, 0]), resamples=0)
    assert worst(domains) == {
        "accuracy": "b",
        "balanced_accuracy": "b",
        "macro_f1": "b",
        "auroc": "b",
        "calibration_error": "b",
    }
    assert worst({"c": domains["c"]}).keys() == set(METRICS) - {"auroc"}


HALF = np.full((2, 2), 0.5)
ZEROS = np.zeros(2, int)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((HALF[:0], ZEROS[:0]), r"probabilities: got shape \[0, 2\], expected \[N, C\] with N ≥ 1 and C ≥ 2"),
        ((HALF[:, :1], ZEROS), r"got shape \[2, 1\]"),
        ((HALF * 3, ZEROS), r"sum to 3 to 3, expected numbers from 0 to 1 that sum to 1; give logits.softmax\(1\)"),
        ((HALF * np.nan, ZEROS), "give logits"),
        ((HALF, ZEROS + 2), "labels: got 2 to 2, expected 0 to 1, for 2 classes"),
        ((HALF, ZEROS * 1.0), r"labels: got float64 of shape \[2\], expected 2 whole numbers"),
        ((HALF, ZEROS[:1]), r"of shape \[1\]"),
        ((HALF, ZEROS, ["cat"]), "classes: got 1 names, expected 2, one for each column"),
        ((HALF, ZEROS, None, ZEROS - 1), "predictions: got -1 to -1"),
    ],
)
def test_input_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        classification(*arguments)
