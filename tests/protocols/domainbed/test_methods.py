"""From hyper-parameters to objectives: DomainBed's conventions, spelled out, by what they do to the parameters."""

from typing import ClassVar

import pytest
import torch
from attrs import frozen
from torch import nn

from fishr.errors import InputError
from fishr.methods import METHODS
from fishr.observation import observe
from fishr.penalties import IRM, Scaled, Stateless, Total, VREx
from fishr.protocols.domainbed.hyperparameters import hyperparameters
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.types import DomainBatch, Problem

SIZES = (8, 8, 8)


def _seen(head):
    draws = torch.Generator().manual_seed(1)
    inputs = torch.randn(24, 5, generator=draws, dtype=torch.float64)
    labels = torch.randint(3, (24,), generator=draws)
    return observe(nn.Identity(), head, DomainBatch(inputs, labels, SIZES)), inputs, labels


def _head():
    torch.manual_seed(2)
    return nn.Linear(5, 3, dtype=torch.float64)


def _losses(head, inputs, labels):
    each = nn.functional.cross_entropy(head(inputs), labels, reduction="none")
    return torch.stack([part.mean() for part in each.split(8)])


def _erm(head, inputs, labels, hparams, step):
    return nn.functional.cross_entropy(head(inputs), labels)


def _vrex(head, inputs, labels, hparams, step):
    losses = _losses(head, inputs, labels)
    weight = hparams["vrex_lambda"] if step >= hparams["vrex_penalty_anneal_iters"] else 1.0
    return losses.mean() + weight * ((losses - losses.mean()) ** 2).mean()


def _irm(head, inputs, labels, hparams, step):
    weight = hparams["irm_lambda"] if step >= hparams["irm_penalty_anneal_iters"] else 1.0
    penalty = 0.0
    for rows, targets in zip(inputs.split(8), labels.split(8), strict=True):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        logits = head(rows) * scale
        halves = [nn.functional.cross_entropy(logits[i::2], targets[i::2]) for i in (0, 1)]
        first, second = (torch.autograd.grad(half, scale, create_graph=True)[0] for half in halves)
        penalty = penalty + first * second / 3
    return _losses(head, inputs, labels).mean() + weight * penalty


def _fishr(head, inputs, labels, hparams, step):
    """One sample's gradient after another; the average starts at zero and is divided by (1 - ema)."""
    weight = hparams["lambda"] if step >= hparams["penalty_anneal_iters"] else 0.0
    variances = []
    for rows, targets in zip(inputs.split(8), labels.split(8), strict=True):
        gradients = []
        for row, target in zip(rows, targets, strict=True):
            loss = nn.functional.cross_entropy(head(row[None]), target[None])
            parts = torch.autograd.grad(loss, tuple(head.parameters()), create_graph=True)
            gradients.append(torch.cat([part.flatten() for part in parts]))
        stacked = torch.stack(gradients)
        variances.append(((stacked - stacked.mean(0)) ** 2).mean(0))
    together = torch.stack(variances)  # the first update of ema * 0 + (1 - ema) * v, over (1 - ema)
    penalty = ((together - together.mean(0)) ** 2).mean(1).mean()
    return nn.functional.cross_entropy(head(inputs), labels) + weight * penalty


ORACLES = {"ERM": _erm, "VREx": _vrex, "IRM": _irm, "Fishr": _fishr}


@pytest.mark.parametrize("hparams_seed", [0, 3])
@pytest.mark.parametrize("algorithm", ORACLES)
@pytest.mark.parametrize("late", [False, True])
def test_gradients_are_those_of_the_oracle(algorithm, hparams_seed, late):
    hparams = hyperparameters("PACS", METHODS[algorithm].ranges, hparams_seed, 0)
    objective, head = METHODS[algorithm].objective_for(hparams, domains=3), _head()
    at = objective.fresh_optimizer_at or 100
    for step in (at, at + 1) if late else (0, at - 1):
        seen, inputs, labels = _seen(head)
        loss, _ = objective.evaluate(seen, head.parameters(), objective.init(Problem.of(head, 3)), step)
        expected = ORACLES[algorithm](head, inputs, labels, hparams, step)
        torch.testing.assert_close(loss.total, expected, rtol=1e-10, atol=1e-12)
        found = torch.autograd.grad(loss.total, tuple(head.parameters()))
        wanted = torch.autograd.grad(expected, tuple(head.parameters()))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_the_optimizer_is_made_anew_where_the_weight_jumps():
    assert METHODS["ERM"].objective_for({}, domains=3).fresh_optimizer_at is None
    for algorithm, name in (
        ("Fishr", "penalty_anneal_iters"),
        ("IRM", "irm_penalty_anneal_iters"),
        ("VREx", "vrex_penalty_anneal_iters"),
    ):
        hparams = hyperparameters("PACS", METHODS[algorithm].ranges, 5, 0)
        assert METHODS[algorithm].objective_for(hparams, domains=3).fresh_optimizer_at == hparams[name]


def test_a_method_of_ones_own():
    mine = OwnMethod(VREx(form="pairwise"), weight=10.0, weight_powers=(1, 2), warm_up=7, before=0.5)
    drawn = hyperparameters("PACS", mine.method().ranges, 0, 0)
    assert (drawn["lambda"], drawn["penalty_anneal_iters"]) == (10.0, 7)
    schedule = mine.method().objective_for(drawn, domains=3).penalty.terms["penalty"].schedule
    assert [schedule(step) for step in (6, 7)] == [0.5, 10.0]
    for seed in range(1, 30):
        random = hyperparameters("PACS", mine.method().ranges, seed, 0)
        assert 10 <= random["lambda"] <= 100
        assert 1 <= random["penalty_anneal_iters"] <= 10_000
    # The shared ones are those of every other method.
    assert random["lr"] == hyperparameters("PACS", {}, 29, 0)["lr"]


def test_powers_out_of_order_are_refused():
    with pytest.raises(InputError, match="expected the lowest and the highest"):
        OwnMethod(VREx(), weight_powers=(2.0, 1.0))


@pytest.mark.parametrize("algorithm", ORACLES)
def test_a_single_domain_trains_as_in_domainbed(algorithm):
    """Colored MNIST with two test environments: what compares domains is zero there, IRM is not."""
    hparams = hyperparameters("ColoredMNIST", METHODS[algorithm].ranges, 0, 0)
    objective, head = METHODS[algorithm].objective_for(hparams, domains=1), _head()
    _, inputs, labels = _seen(head)
    inputs, labels = inputs[:8], labels[:8]
    seen = observe(nn.Identity(), head, DomainBatch(inputs, labels, (8,)))
    loss, _ = objective.evaluate(seen, head.parameters(), objective.init(Problem.of(head, 1)), 10_000)
    expected = nn.functional.cross_entropy(head(inputs), labels)
    if algorithm == "IRM":
        assert (loss.total - expected).abs().item() > 1e-6
    else:
        torch.testing.assert_close(loss.total, expected, rtol=1e-12, atol=0.0)
    several = METHODS[algorithm].objective_for(hparams, domains=2)
    assert objective.fresh_optimizer_at == several.fresh_optimizer_at
    assert several.penalty.terms or algorithm == "ERM"


@frozen
class Apart:
    """A penalty of one's own that compares domains and says so."""

    least_domains: ClassVar[int] = 2

    def init(self, problem):
        assert problem.domains > 1
        return ()

    def __call__(self, seen, state, step):
        return seen.domain_losses.var(), state


def _apart(seen):
    return seen.domain_losses.var()


_apart.least_domains = 2


@pytest.mark.parametrize(
    ("penalty", "compares"),
    [
        (Apart(), True),
        (Scaled(Apart(), 2.0), True),
        (Total(irm=IRM(), mine=Scaled(Apart(), 2.0)), True),
        (Stateless(_apart), True),
        (Scaled(VREx(), 2.0), True),
        (Stateless(lambda seen: seen.losses.mean()), False),
        (Total(irm=IRM()), False),
    ],
)
def test_a_method_of_ones_own_that_compares_domains_is_left_out_where_there_is_one(penalty, compares):
    drawn = {"lambda": 10.0, "penalty_anneal_iters": 5}
    for domains in (1, 2):
        objective = OwnMethod(penalty).method().objective_for(drawn, domains)
        assert objective.fresh_optimizer_at == 5
        assert bool(objective.penalty.terms) == (domains == 2 or not compares)
        objective.init(Problem.of(_head(), domains))
