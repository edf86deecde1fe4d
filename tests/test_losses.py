"""Losses against torch's, their deltas against autograd."""

import math

import pytest
import torch
from cases import EXACT, FLOAT64, LOSSES
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss, check_labels, loss_deltas, per_sample_losses
from fishr.observation import observe
from fishr.statistics import gradient_gram, gradient_moments, per_sample_gradients
from fishr.types import DomainBatch


@pytest.mark.parametrize("name", LOSSES)
def test_deltas_and_their_derivatives_are_autograds(name: str) -> None:
    task = LOSSES[name]
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


def test_losses_are_torchs() -> None:
    logits, labels = torch.randn(6, 3, dtype=FLOAT64), torch.randint(3, (6,))
    assert_close(CrossEntropy()(logits, labels), nn.functional.cross_entropy(logits, labels, reduction="none"))
    many = torch.randint(2, (6, 3))
    expected = nn.functional.binary_cross_entropy_with_logits(logits, many.to(FLOAT64), reduction="none")
    assert_close(BinaryCrossEntropy()(logits, many), expected.sum(1))
    assert_close(BinaryCrossEntropy()(logits[:, :1], many[:, 0]), expected[:, 0])


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
        (BinaryCrossEntropy(), torch.zeros(3, 2), torch.zeros(3), "one label per output"),
        (BinaryCrossEntropy(), torch.zeros(3), torch.zeros(3), "one label per output"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    loss: CrossEntropy | BinaryCrossEntropy, logits: Tensor, labels: Tensor, message: str
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


WRONG_LABELS: dict[str, tuple[Loss, int, list[float], str]] = {
    "from 1": (CrossEntropy(), 3, [1, 2, 3], "got labels from 1 to 3, expected whole numbers from 0 to 2.*subtract 1$"),
    "-1 as nothing": (CrossEntropy(), 3, [-1, 0, 2], r"got labels from -1 to 2.*CrossEntropyLoss.*ignore_index=-1\)"),
    "-100 as nothing": (CrossEntropy(), 3, [0, 1, -100], r"got labels from -100 to 1.*ignore_index=-100\)"),
    "more classes": (CrossEntropy(), 3, [0, 1, 7], "got labels from 0 to 7.*give the head more outputs$"),
    "-1 and 1": (BinaryCrossEntropy(), 1, [-1, 1, 1], r"labels from -1 to 1, expected 0 and 1.*\(labels == 1\)\.long"),
    "1 and 2": (BinaryCrossEntropy(), 1, [1, 2, 1], r"labels from 1 to 2, expected 0 and 1.*\(labels == 2\)\.long"),
    "0 and 255": (BinaryCrossEntropy(), 1, [0, 255, 0], r"got labels from 0 to 255.*\(labels == 255\)\.long\(\)$"),
    "three classes": (BinaryCrossEntropy(), 1, [0, 1, 2], r"got labels from 0 to 2.*use CrossEntropy\(\)"),
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
    for loss, outputs in ((CrossEntropy(), 2), (BinaryCrossEntropy(), 1)):
        logits, labels = torch.randn(4, outputs), torch.tensor([0, 1, 1, 0])
        compiled = torch.compile(loss.__call__, fullgraph=True, backend="eager")
        assert_close(compiled(logits, labels), loss(logits, labels))


def test_ignored_samples_have_no_gradient_on_any_route() -> None:
    """torch's loss with ``ignore_index`` is a loss like any other; it says nothing of the labels it takes."""
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
