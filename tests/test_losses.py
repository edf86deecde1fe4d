"""Losses against torch's, their deltas against autograd."""

import math

import pytest
import torch
from cases import EXACT, FLOAT64, LOSSES
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy, CrossEntropy, loss_deltas, per_sample_losses


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
