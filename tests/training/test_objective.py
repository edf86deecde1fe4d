"""The objective's arithmetic, by hand."""

import pytest
import torch

from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy
from fishr.observation import observe
from fishr.penalties import ERM, Scaled, StepSchedule, Total, VREx
from fishr.training.objective import Objective
from fishr.types import DomainBatch, Problem


def _seen():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    batch = DomainBatch(inputs, torch.tensor([0, 1] * 4), sizes=(3, 5))
    head = torch.nn.Linear(3, 1, dtype=torch.float64)
    return head, observe(torch.nn.Identity(), head, batch, BinaryCrossEntropy())


def _two(rescale):
    penalty = Total(
        one=Scaled(VREx(form="pairwise"), StepSchedule(at=5, before=0.5, after=40.0)),
        two=Scaled(VREx(form="pairwise"), 3.0),
    )
    return Objective(risk=ERM(over="domains"), penalty=penalty, l2=0.25, rescale=rescale)


@pytest.mark.parametrize(("step", "weight", "divisor"), [(4, 0.5, 3.0), (5, 40.0, 40.0)])
@pytest.mark.parametrize("rescale", [False, True])
def test_the_sum_by_hand(step, weight, divisor, rescale):
    head, seen = _seen()
    objective = _two(rescale)
    state = objective.init(Problem.of(head, domains=2))
    loss, _ = objective.evaluate(seen, head.parameters(), state, step)

    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        head(seen.batch.inputs).squeeze(1), seen.labels.double(), reduction="none"
    )
    first, second = losses[:3].mean(), losses[3:].mean()
    gap = (first - second) ** 2
    l2 = 0.25 * ((head.weight**2).sum() + (head.bias**2).sum())
    expected = (first + second) / 2 + l2 + weight * gap + 3.0 * gap
    expected = expected / divisor if rescale else expected

    torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.l2, l2, rtol=1e-12, atol=0)
    assert {name: term.weight for name, term in loss.terms.items()} == {"one": weight, "two": 3.0}
    ours = torch.autograd.grad(loss.total, head.weight, retain_graph=True)[0]
    torch.testing.assert_close(ours, torch.autograd.grad(expected, head.weight)[0], rtol=1e-10, atol=1e-14)


def test_small_weights_never_enlarge_the_loss():
    head, seen = _seen()
    objective = Objective(penalty=Total(one=Scaled(VREx(), 0.01)), rescale=True)
    loss, _ = objective.evaluate(seen, head.parameters(), objective.init(Problem.of(head, domains=2)), 0)
    torch.testing.assert_close(loss.total, loss.risk + loss.terms["one"].value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"l2": -1.0}, "l2: got -1.0"),
        ({"fresh_optimizer_at": -1}, "fresh_optimizer_at: got -1, expected a whole number of at least 0"),
        ({"fresh_optimizer_at": 2.0}, "fresh_optimizer_at: got 2.0"),
        ({"penalty": Total(risk=Scaled(VREx(), 1.0))}, "a term named risk"),
    ],
)
def test_what_makes_no_objective_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Objective(**fields)
