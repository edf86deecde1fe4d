"""IRM against its definition by a dummy scale and two backward passes."""

import pytest
import torch
from cases import EXACT, FLOAT64, Featurizer, derivatives
from loss_cases import EVERY_LOSS
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.observation import observe
from fishr.penalties import IRM
from fishr.types import DomainBatch, Problem

SIZES = (4, 3, 2)


def by_scale(losses: Tensor, scale: Tensor) -> Tensor:
    return torch.autograd.grad(losses.mean(), [scale], create_graph=True)[0]


@pytest.mark.parametrize("form", ["squared", "half_batches"])
@pytest.mark.parametrize("name", EVERY_LOSS)
def test_both_forms_are_the_dummy_scales_gradients(name: str, form: str) -> None:
    task = EVERY_LOSS[name]
    featurizer, head = Featurizer((3,)), nn.Linear(3, task.outputs).to(FLOAT64)
    batch = DomainBatch(torch.randn(sum(SIZES), 3, dtype=FLOAT64), task.labels(sum(SIZES)), SIZES)
    logits, terms = head(featurizer(batch.inputs)), []
    for f, y in zip(logits.split(list(SIZES)), batch.labels.split(list(SIZES)), strict=True):
        scale = torch.ones((), dtype=FLOAT64, requires_grad=True)
        losses = task.loss(scale * f, y)
        halves = (losses, losses) if form == "squared" else (losses[::2], losses[1::2])
        terms.append(by_scale(halves[0], scale) * by_scale(halves[1], scale))
    expected = sum(terms) / 3
    found, state = IRM(form)(observe(featurizer, head, batch, task.loss), (), 0)
    assert state == ()
    assert_close(found, expected, **EXACT)
    assert_close(derivatives(found, featurizer, head), derivatives(expected, featurizer, head), **EXACT)


def test_half_batches_of_one_sample_are_refused() -> None:
    batch = DomainBatch(torch.zeros(3, 2), torch.zeros(3).long(), (2, 1))
    with pytest.raises(InputError, match=r"IRM: got domains of \(2, 1\) samples"):
        IRM("half_batches")(observe(nn.Identity(), nn.Linear(2, 2), batch), (), 0)


def test_a_single_domain_serves() -> None:
    """Its own risk's gradient is all that the penalty reads."""
    assert IRM().init(Problem.of(nn.Linear(2, 2), 1)) == ()
