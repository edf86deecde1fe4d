"""Risk, gradient and noise of each domain."""

import torch
from diagnostics.dense import TIGHT, Dense, dense
from loss_cases import LOSSES
from torch.testing import assert_close

from fishr.diagnostics import (
    accuracy,
    empirical_fisher_diagonal,
    gradient_norm,
    gradient_variance,
    noise_scale,
    risk,
    signal_to_noise,
    total_noise,
)


def test_they_are_those_of_the_gradients_of_single_samples(case: Dense) -> None:
    seen, traces = case.curvature, torch.stack([c.trace() for c in case.covariances])
    squares = torch.stack([g.square().sum(1).mean() for g in case.gradients])
    assert_close(risk.of(seen).value, case.risks, **TIGHT)
    assert_close(gradient_norm.of(seen).value, torch.linalg.vector_norm(case.means, dim=1), **TIGHT)
    assert_close(gradient_variance.of(seen).value, case.variances, **TIGHT)
    assert_close(total_noise.of(seen).value, traces, **TIGHT)
    assert_close(total_noise.of(seen).value, squares - case.means.square().sum(1), **TIGHT)
    assert_close(noise_scale.of(seen).value, traces / case.means.square().sum(1), **TIGHT)
    second = torch.stack([g.square().mean(0) for g in case.gradients])
    assert_close(empirical_fisher_diagonal.of(seen).value, second, **TIGHT)
    quantities = [each.of(seen) for each in (risk, gradient_norm, gradient_variance, noise_scale, signal_to_noise)]
    assert all(len(q.axes) == q.value.ndim and q.unit and q.route and q.error is None for q in quantities)


def test_signal_to_noise_of_each_parameter() -> None:
    case = dense("linear", "cross-entropy", (30, 12))
    assert_close(signal_to_noise.of(case.curvature).value, case.means.square() / case.variances, atol=1e-8, rtol=1e-6)
    single = dense("linear", "cross-entropy", (1,))
    assert (signal_to_noise.of(single.curvature).value > 1e12).all()


def test_accuracy_counts_right_predictions() -> None:
    case = dense("linear", "cross-entropy", (30, 12))
    right = (case.head(case.features).argmax(1) == case.labels).double()
    expected = torch.stack([right[:30].mean(), right[30:].mean()])
    assert_close(accuracy.of(case.curvature).value, expected)
    binary = dense("linear", "binary", (30, 12))
    right = ((binary.head(binary.features)[:, 0] > 0).long() == binary.labels).double()
    assert_close(accuracy.of(binary.curvature).value, torch.stack([right[:30].mean(), right[30:].mean()]))


def test_a_loss_without_predictions_has_no_accuracy_and_says_so() -> None:
    found = accuracy.of(dense("linear", "squared", (1, 5, 2)).curvature)
    assert found.value.isnan().all()
    assert found.route == "not computed: the loss predicts no class"


def test_per_output_labels_count_each_by_itself() -> None:
    case = dense("linear", "multi-label", (1, 5, 2))
    right = ((case.head(case.features) > 0).long() == case.labels).double()
    assert LOSSES["multi-label"].outputs == 2
    assert_close(accuracy.of(case.curvature).value, torch.stack([part.mean() for part in right.split([1, 5, 2])]))
