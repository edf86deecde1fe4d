"""Losses against torch's, their deltas against autograd."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import EXACT, FLOAT64
from loss_cases import EVERY_LOSS, WEIGHTS, torchs
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import (
    BinaryCrossEntropy,
    CrossEntropy,
    Loss,
    SquaredError,
    check_labels,
    loss_deltas,
    outputs_of,
    per_sample_losses,
    predictions_of,
    shares_correct,
)
from fishr.observation import observe
from fishr.statistics import gradient_gram, gradient_moments, per_sample_gradients
from fishr.types import DomainBatch


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_deltas_and_their_derivatives_are_autograds(name: str) -> None:
    task = EVERY_LOSS[name]
    logits = (3 * torch.randn(6, task.outputs, dtype=FLOAT64)).requires_grad_()
    labels = task.labels(6)
    (expected,) = torch.autograd.grad(task.loss(logits, labels).sum(), [logits], create_graph=True)
    found = loss_deltas(task.loss, logits, labels)
    assert_close(found, expected, **EXACT)
    (second,) = torch.autograd.grad(expected.pow(3).sum(), [logits])
    assert_close(torch.autograd.grad(found.pow(3).sum(), [logits])[0], second, **EXACT)
    frozen = loss_deltas(task.loss, logits.detach(), labels)
    assert_close(frozen, expected.detach(), **EXACT)
    assert not frozen.requires_grad
    with torch.no_grad():
        assert_close(loss_deltas(task.loss, logits.detach(), labels), expected.detach(), **EXACT)


@pytest.mark.parametrize("name", [name for name in EVERY_LOSS if name != "squared"])
def test_losses_and_their_gradients_are_torchs(name: str) -> None:
    task = EVERY_LOSS[name]
    logits, labels = (3 * torch.randn(20, task.outputs, dtype=FLOAT64)).requires_grad_(), task.labels(20)
    tight = {"atol": 1e-12, "rtol": 1e-12}
    found, expected = task.loss(logits, labels), torchs(task.loss, logits, labels)
    assert_close(found, expected, **tight)
    (gradient,) = torch.autograd.grad(expected.sum(), [logits])
    assert_close(torch.autograd.grad(found.sum(), [logits])[0], gradient, **tight)
    assert_close(loss_deltas(task.loss, logits.detach(), labels), gradient, **tight)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.2}, {"class_weights": WEIGHTS}])
def test_ignored_samples_lose_nothing(settings: dict[str, Any]) -> None:
    loss = CrossEntropy(**settings, ignore_index=-100)
    logits, labels = torch.randn(6, 3, dtype=FLOAT64), torch.tensor([0, -100, 2, 1, -100, 0])
    expected = torchs(loss, logits, labels)
    assert_close(loss(logits, labels), expected, atol=1e-12, rtol=1e-12)
    assert loss.deltas(logits, labels).abs().sum(1).gt(0).tolist() == [True, False, True, True, False, True]
    assert_close(loss.deltas(logits, labels), loss_deltas(lambda f, y: loss(f, y), logits, labels), **EXACT)


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    losses = CrossEntropy()(logits, torch.tensor([0, 0]))
    assert losses.tolist() == [0.0, 2e4]
    assert CrossEntropy().deltas(logits, torch.tensor([0, 0])).tolist() == [[0.0, 0.0], [-1.0, 1.0]]
    assert BinaryCrossEntropy()(logits[:, :1], torch.tensor([0, 0])).tolist() == [1e4, 0.0]


def test_golden_values() -> None:
    """Uniform logits over C classes lose log C; δ is 1/C − 1 at the label and 1/C elsewhere."""
    assert CrossEntropy()(torch.zeros(1, 4), torch.tensor([2])).item() == pytest.approx(math.log(4))
    assert CrossEntropy().deltas(torch.zeros(1, 4), torch.tensor([2])).tolist() == [[0.25, 0.25, -0.75, 0.25]]
    assert BinaryCrossEntropy().deltas(torch.zeros(2, 1), torch.tensor([0, 1])).tolist() == [[0.5], [-0.5]]


def test_outputs_and_predictions() -> None:
    assert CrossEntropy().outputs(7) == 7
    assert BinaryCrossEntropy().outputs(2) == 1
    assert CrossEntropy().predictions(torch.tensor([[0.0, 1.0], [3.0, 1.0]])).tolist() == [1, 0]
    assert BinaryCrossEntropy().predictions(torch.tensor([[0.5], [-0.5]])).tolist() == [1, 0]
    with pytest.raises(InputError, match="got 3 classes, expected 2"):
        BinaryCrossEntropy().outputs(3)


@pytest.mark.parametrize(
    ("loss", "logits", "labels", "message"),
    [
        (CrossEntropy(), torch.zeros(3, 1), torch.zeros(3).long(), "BinaryCrossEntropy"),
        (CrossEntropy(), torch.zeros(3, 2, 2), torch.zeros(3).long(), r"expected \[N, C\]"),
        (CrossEntropy(), torch.zeros(3, 2), torch.zeros(3), "torch.int64"),
        (CrossEntropy(), torch.zeros(3, 2), torch.zeros(3, 2).long(), "got labels of shape"),
        (CrossEntropy(), torch.zeros(3, 2), torch.zeros(3, 3), r"expected \[3\] and torch.int64, or prob.* \[3, 2\]"),
        (
            CrossEntropy(class_weights=(1, 2, 3)),
            torch.zeros(3, 2),
            torch.zeros(3).long(),
            "got 3 numbers",
        ),
        (
            BinaryCrossEntropy((1, 2)),
            torch.zeros(3, 1),
            torch.zeros(3),
            "got 2 numbers for 1 outp",
        ),
        (SquaredError(), torch.zeros(3, 2), torch.zeros(3), "squared error: got labels .* one label per output"),
        (BinaryCrossEntropy(), torch.zeros(3, 2), torch.zeros(3), "one label per output"),
        (BinaryCrossEntropy(), torch.zeros(3), torch.zeros(3), "one label per output"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    loss: CrossEntropy | BinaryCrossEntropy | SquaredError, logits: Tensor, labels: Tensor, message: str
) -> None:
    for call in (loss, loss.deltas):
        with pytest.raises(InputError, match=message):
            call(logits, labels)


def test_a_loss_over_the_batch_is_refused() -> None:
    logits, labels = torch.zeros(3, 2), torch.zeros(3).long()
    for reduction in ("mean", "sum"):
        with pytest.raises(InputError, match=r"got shape \(\) from CrossEntropyLoss, expected \(3,\)"):
            per_sample_losses(nn.CrossEntropyLoss(reduction=reduction), logits, labels)
    with pytest.raises(InputError, match="from mse_loss"):
        loss_deltas(nn.functional.mse_loss, logits, torch.zeros(3, 2))


WRONG_LABELS: dict[str, tuple[Loss, int, list[Any], str]] = {
    "from 1": (CrossEntropy(), 3, [1, 2, 3], "got labels from 1 to 3, expected whole numbers from 0 to 2.*subtract 1$"),
    "-1 as nothing": (CrossEntropy(), 3, [-1, 0, 2], r"got labels from -1 to 2.*use CrossEntropy.*ignore_index=-1\)"),
    "-100 as nothing": (CrossEntropy(), 3, [0, 1, -100], r"got labels from -100 to 1.*ignore_index=-100\)"),
    "more classes": (CrossEntropy(), 3, [0, 1, 7], "got labels from 0 to 7.*give the head more outputs$"),
    "-1 and 1": (BinaryCrossEntropy(), 1, [-1, 1, 1], r"labels from -1 to 1, expected 0 and 1.*\(labels == 1\)\.long"),
    "1 and 2": (BinaryCrossEntropy(), 1, [1, 2, 1], r"labels from 1 to 2, expected 0 and 1.*\(labels == 2\)\.long"),
    "0 and 255": (BinaryCrossEntropy(), 1, [0, 255, 0], r"got labels from 0 to 255.*\(labels == 255\)\.long\(\)$"),
    "three classes": (BinaryCrossEntropy(), 1, [0, 1, 2], r"got labels from 0 to 2.*use CrossEntropy\(\)"),
    "another ignored": (CrossEntropy(ignore_index=-1), 3, [0, -1, -2], r"labels from -2 to 0.*ignore_index=-2\)"),
    "scores": (CrossEntropy(), 2, [[1.5, -0.5]] * 3, "got soft labels from -0.5 to 1.5, expected probabilities; apply"),
    "several labels": (CrossEntropy(), 2, [[1.0, 1.0]] * 3, "of a sample that sum to 2, expected 1; divide.*several"),
    "no finite number": (SquaredError(), 1, [0.0, math.inf, 1.0], "squared error: got labels that are not finite"),
    "no number": (BinaryCrossEntropy(), 1, [0.0, math.nan, 1.0], "got labels from nan to nan, expected 0 and 1"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_label_values_are_refused_wherever_they_enter(name: str) -> None:
    loss, outputs, values, message = WRONG_LABELS[name]
    labels, features, sizes = torch.tensor(values), torch.randn(3, 4), (1, 2)
    linear = nn.Linear(4, outputs)
    two_layers = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs))
    seen = observe(nn.Identity(), linear, DomainBatch(features, labels, sizes), loss)
    calls = {
        "check_labels": lambda: check_labels(loss, labels, outputs),
        "the loss": lambda: loss(linear(features), labels),
        "deltas": lambda: loss_deltas(loss, linear(features), labels),
        "observed losses": lambda: seen.losses,
        "observed moments": lambda: seen.moments,
        "closed form": lambda: gradient_moments(linear, features, labels, sizes, loss),
        "BackPACK": lambda: gradient_moments(two_layers, features, labels, sizes, loss, route="backpack"),
        "torch.func": lambda: gradient_moments(two_layers, features, labels, sizes, loss, route="functional"),
        "per-sample gradients": lambda: per_sample_gradients(two_layers, features, labels, loss),
        "Gram matrix": lambda: gradient_gram(linear, features, labels, loss),
    }
    for call in calls.values():
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_labels_at_the_bounds_and_probabilities_are_taken() -> None:
    check_labels(CrossEntropy(), torch.tensor([0, 2]), outputs=3)
    check_labels(CrossEntropy(), torch.zeros(0).long(), outputs=3)
    check_labels(BinaryCrossEntropy(), torch.tensor([True, False]), outputs=1)
    check_labels(BinaryCrossEntropy(), torch.tensor([[0.0, 0.5], [1.0, 0.25]]), outputs=2)
    soft = BinaryCrossEntropy()(torch.zeros(2, 1), torch.tensor([0.25, 1.0]))
    assert_close(soft, torch.full((2,), math.log(2)))


def test_labels_on_a_device_are_not_read_in_a_step() -> None:
    """Their values would be waited for; a tensor without any values tells of each attempt."""
    labels, logits = torch.zeros(3, dtype=torch.int64, device="meta"), torch.zeros(3, 2, device="meta")
    assert CrossEntropy()(logits, labels).shape == (3,)
    assert BinaryCrossEntropy()(logits[:, :1], labels).shape == (3,)


def test_compiled_losses_are_one_graph() -> None:
    for loss, outputs in (
        *((CrossEntropy(), 2), (CrossEntropy(0.1, (1, 2), -1), 2)),
        *((BinaryCrossEntropy(), 1), (BinaryCrossEntropy((2,)), 1), (SquaredError(), 1)),
    ):
        logits, labels = torch.randn(4, outputs), torch.tensor([0, 1, 1, 0])
        compiled = torch.compile(loss.__call__, fullgraph=True, backend="eager")
        assert_close(compiled(logits, labels), loss(logits, labels))


def test_ignored_samples_are_in_no_moment_on_any_route() -> None:
    loss, head = CrossEntropy(ignore_index=-1), nn.Sequential(nn.Linear(4, 3)).to(FLOAT64)
    features, labels = torch.randn(6, 4, dtype=FLOAT64), torch.tensor([0, -1, 2, 0, -1, 1])
    kept = labels != -1
    expected = gradient_moments(head, features[kept], labels[kept], (2, 2))
    for route in ("backpack", "functional"):
        found = gradient_moments(head, features, labels, (3, 3), loss, route)
        assert found.count == (2, 2)
        assert_close((found.mean, found.variance), (expected.mean, expected.variance), **EXACT)
    one_by_one = per_sample_gradients(head, features, labels, loss)
    assert one_by_one.abs().sum(1).gt(0).tolist() == kept.tolist()
    found = gradient_moments(head[0], features, labels, (3, 3), loss)
    assert_close((found.mean, found.variance), (expected.mean, expected.variance), **EXACT)
    with pytest.raises(InputError, match=r"sizes: got \(3, 0\), expected at least one sample in each"):
        gradient_moments(head, features, torch.tensor([0, 1, 2, -1, -1, -1]), (3, 3), loss)


def test_torchs_ignored_samples_have_no_gradient_and_count() -> None:
    """torch's loss with ``ignore_index`` is a loss like any other, which does not say which samples have a label."""
    loss = nn.CrossEntropyLoss(reduction="none", ignore_index=-1)
    head = nn.Sequential(nn.Linear(4, 3)).to(FLOAT64)
    features, labels = torch.randn(5, 4, dtype=FLOAT64), torch.tensor([0, -1, 2, -1, 1])
    check_labels(loss, labels, outputs=3)
    one_by_one = per_sample_gradients(head, features, labels, loss)
    assert one_by_one.abs().sum(1).gt(0).tolist() == [True, False, True, False, True]
    expected = torch.stack([part.var(0, correction=0) for part in one_by_one.split([2, 3])])
    for route in ("backpack", "functional"):
        assert_close(gradient_moments(head, features, labels, (2, 3), loss, route).variance, expected, **EXACT)
    assert_close(gradient_moments(head[0], features, labels, (2, 3), loss).variance, expected, **EXACT)


def test_shares_of_right_predictions() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    assert shares_correct(CrossEntropy(), logits, torch.tensor([0, 1])).tolist() == [1.0, 0.0]
    soft = torch.tensor([[0.4, 0.6, 0.0], [0.1, 0.2, 0.7]])
    assert shares_correct(CrossEntropy(), logits, soft).tolist() == [0.0, 1.0]
    several = torch.tensor([[1, 1, 0], [1, 0, 1]])
    assert_close(shares_correct(BinaryCrossEntropy(), logits, several), torch.tensor([1.0, 1 / 3]))
    assert_close(shares_correct(BinaryCrossEntropy(), logits, several * 0.8), torch.tensor([1.0, 1 / 3]))
    for labels in (torch.tensor([1, 1]), torch.tensor([[0.7], [0.9]])):
        assert shares_correct(BinaryCrossEntropy(), logits[:, 1:2] - 1.5, labels).tolist() == [0.0, 0.0]
        assert shares_correct(BinaryCrossEntropy(), logits[:, 1:2], labels).tolist() == [1.0, 1.0]
    assert shares_correct(SquaredError(), logits, logits).isnan().all()


def test_a_loss_of_ones_own_predicts_the_largest_output_of_classes_and_nothing_of_numbers() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    assert shares_correct(functional.cross_entropy, logits, torch.tensor([0, 0])).tolist() == [1.0, 0.0]
    for labels in (torch.tensor([0.0, 1.0]), torch.eye(2)):
        assert shares_correct(functional.mse_loss, logits, labels).isnan().all()
    assert shares_correct(functional.mse_loss, logits[:, :1], torch.tensor([0, 0])).isnan().all()
    with pytest.raises(InputError, match="SquaredError predicts no class"):
        predictions_of(SquaredError(), logits)


def test_outputs_are_the_columns_of_labels() -> None:
    for loss in (CrossEntropy(), BinaryCrossEntropy(), SquaredError()):
        assert outputs_of(loss, 5, labels=4) == 4
    assert outputs_of(CrossEntropy(), 5) == 5
    assert outputs_of(SquaredError(), 5) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(1.0), "label_smoothing: got 1.0, expected a number of at least 0.0 and less than 1"),
        (lambda: CrossEntropy(class_weights=(1.0, -1.0)), "class_weights: got .* at least 0 for each output"),
        (lambda: CrossEntropy(class_weights=(0.0, 0.0)), "class_weights: got .* not all 0"),
        (lambda: BinaryCrossEntropy((math.nan,)), "positive_weights: got .* at least 0 for each output"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_settings_of_no_effect_are_the_default() -> None:
    """So that files of earlier versions name the same experiment."""
    assert CrossEntropy(label_smoothing=0) == CrossEntropy()
