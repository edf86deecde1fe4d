"""Penalties of every loss against gradients of torch's own loss, one sample after the other, in float64."""

import copy

import pytest
import torch
from attrs import evolve
from cases import EXACT, FLOAT64, derivatives, oracle_gradients
from loss_cases import EVERY_LOSS, WEIGHTS, LossCase, torchs
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.accumulation import accumulate
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.observation import observe
from fishr.penalties import ERM, IRM, Fishr, Total, VREx
from fishr.ranks import ALONE, Ranks, mean_over_ranks
from fishr.types import DomainBatch, Problem

GAMMA = 0.7
PENALTY = Total(erm=ERM(), irm=IRM(), vrex=VREx(), fishr=Fishr(), average=Fishr(ema=GAMMA))
IGNORED = CrossEntropy(0.2, WEIGHTS, ignore_index=-1)
CASES = {name: case for name, case in EVERY_LOSS.items() if name != "squared"} | {
    "ignored samples": LossCase(IGNORED, 3, lambda n: torch.where(torch.arange(n) % 4 == 1, -1, torch.arange(n) % 3))
}


def labeled(case: LossCase, labels: Tensor) -> Tensor:
    return labels != -1 if case.loss is IGNORED else torch.ones(len(labels), dtype=torch.bool)


def distance(rows: list[Tensor]) -> Tensor:
    center = sum(rows) / len(rows)
    return sum(((row - center) ** 2).mean() for row in rows) / len(rows)


def oracle(
    case: LossCase, featurizer: nn.Module, head: nn.Module, batch: DomainBatch, memory: dict[int, Tensor]
) -> dict[str, Tensor]:
    """Each term by its definition; ``memory`` has the moving averages of the domains and moves."""
    risks, slopes, variances, averages = [], [], [], []
    parts = zip(batch.inputs.split(list(batch.sizes)), batch.labels.split(list(batch.sizes)), strict=True)
    for k, (inputs, labels) in enumerate(parts):
        kept = labeled(case, labels)
        if not kept.any():
            continue
        features, own = featurizer(inputs[kept]), labels[kept]
        scale = torch.ones((), dtype=FLOAT64, requires_grad=True)
        risks.append(torchs(case.loss, head(features), own).mean())
        scaled = torchs(case.loss, scale * head(features), own).mean()
        slopes.append(torch.autograd.grad(scaled, scale, create_graph=True)[0] ** 2)
        gradients = oracle_gradients(head, features, own, lambda f, y: torchs(case.loss, f, y))
        variances.append(((gradients - gradients.mean(0)) ** 2).mean(0))
        before = memory.get(k, torch.zeros_like(variances[-1]))
        averages.append((GAMMA * before + (1 - GAMMA) * variances[-1]) / (1 - GAMMA))
        memory[k] = averages[-1].detach() * (1 - GAMMA)
    return {
        "erm": sum(risks) / len(risks),
        "irm": sum(slopes) / len(slopes),
        "vrex": distance(risks),
        "fishr": distance(variances),
        "average": distance(averages),
    }


def agree(
    name: str, head: nn.Module, route: str = "auto", dtype: torch.dtype = FLOAT64, micro_batches: int = 1
) -> None:
    """Two steps; the second lacks a domain. All numbers are those of float32."""
    case, featurizer = CASES[name], nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
    mine, my_head, labels = copy.deepcopy(featurizer).to(dtype), copy.deepcopy(head.double()).to(dtype), case.labels(14)
    inputs, labels = torch.randn(14, 3).double(), labels.float().double() if labels.is_floating_point() else labels
    state, memory = PENALTY.init(Problem.of(my_head, 3)), dict[int, Tensor]()
    for step, (rows, sizes) in enumerate(((slice(14), (5, 6, 3)), (slice(1, 8), (4, 0, 3)))):
        batch = DomainBatch(inputs[rows], labels[rows], sizes)
        typed = DomainBatch(batch.inputs.to(dtype), batch.labels, sizes)
        seen = observe(accumulate(mine, micro_batches), my_head, typed, case.loss, route)
        terms, state = PENALTY.evaluate(seen, state, step)
        for term, expected in oracle(case, featurizer, head, batch, memory).items():
            by_expected = derivatives(expected, featurizer, head)
            found = [terms[term].value, *derivatives(terms[term].value, mine, my_head)]
            for one, other in zip(found, [expected, *by_expected], strict=True):
                if dtype == FLOAT64:
                    assert_close(one, other, **EXACT, msg=lambda m, term=term: f"{term}: {m}")
                else:
                    assert (one - other).norm() <= 1e-6 * max(1.0, float(other.norm().detach())), term


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_of_linear_heads_are_the_oracles(name: str) -> None:
    agree(name, nn.Linear(3, CASES[name].outputs), micro_batches=3)


@pytest.mark.parametrize("route", ["backpack", "functional"])
@pytest.mark.parametrize(
    "name", ["smoothed soft labels with class weights", "multi-label with weights", "ignored samples"]
)
def test_value_and_gradient_of_other_heads_are_the_oracles(name: str, route: str) -> None:
    agree(name, nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, CASES[name].outputs)), route)


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_the_oracle_in_float64(name: str) -> None:
    agree(name, nn.Linear(3, CASES[name].outputs), dtype=torch.float32)


def test_ignored_samples_are_as_if_they_were_not_in_the_batch() -> None:
    """Of a domain without other samples nothing is left, as of one that is missing."""
    head, kept = nn.Linear(3, 3).double(), torch.tensor([0, 3, 6])
    inputs, labels = torch.randn(7, 3).double(), torch.tensor([0, -1, -1, 2, -1, -1, 1])
    every = observe(nn.Identity(), head, DomainBatch(inputs, labels, (3, 1, 2, 1)), IGNORED)
    rest = observe(nn.Identity(), head, DomainBatch(inputs[kept], labels[kept], (1, 1, 0, 1)), IGNORED)
    assert (every.present, every.sizes, every.domains) == ((0, 1, 3), (1, 1, 1), 3)
    for name in ("labels", "features", "logits", "losses", "domain_losses", "deltas", "gram", "domain_ids"):
        assert torch.equal(getattr(every, name), getattr(rest, name)), name
    assert torch.equal(every.moments.variance, rest.moments.variance)
    given = observe(lambda x: x, head, every.batch, IGNORED, features=inputs)
    assert torch.equal(given.losses, rest.losses)
    # One route for both, because only a batch whose samples all have labels shares the pass of the loss.
    layers = evolve(every, featurizer=nn.Linear(3, 3).double(), layers=("featurizer", "head"), route="backpack")
    others = evolve(rest, featurizer=layers.featurizer, layers=layers.layers, route="backpack")
    assert torch.equal(layers.moments.mean, others.moments.mean)


def test_the_featurizers_batch_normalization_sees_ignored_samples() -> None:
    featurizer, inputs = nn.BatchNorm1d(3), torch.randn(4, 3)
    seen = observe(featurizer, nn.Linear(3, 3), DomainBatch(inputs, torch.tensor([0, -1, 1, 2]), (2, 2)), IGNORED)
    assert_close(seen.features, nn.BatchNorm1d(3)(inputs)[[0, 2, 3]])


def test_a_batch_without_a_label_is_refused() -> None:
    batch = DomainBatch(torch.zeros(2, 3), torch.tensor([-1, -1]), (1, 1))
    with pytest.raises(InputError, match="labels: got a batch without a label, expected one on each rank; draw more"):
        observe(nn.Identity(), nn.Linear(3, 3), batch, IGNORED).domain_losses  # noqa: B018


def steps_on(ranks: Ranks) -> list[Tensor]:
    """Values and gradients of two steps whose labels are on one rank for some domains; domain 1 has none at all."""
    torch.manual_seed(0)
    featurizer, head = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    state, found = PENALTY.init(Problem.of(head, 3)), list[Tensor]()
    for step in range(2):
        inputs, ids = torch.randn(8, 3).double(), torch.tensor([0, 0, 1, 2, 0, 1, 2, 2])
        labels = torch.tensor([0, -1, -1, -1, 2, -1, 1, 0])
        rows = slice(0, 8) if ranks.alone else [slice(0, 4), slice(4, 8)][ranks.number]
        batch = DomainBatch.of(inputs[rows], labels[rows], ids[rows], number=3)
        seen = observe(featurizer, head, batch, IGNORED, ranks=ranks)
        terms, state = PENALTY.evaluate(seen, state, step)
        for term in terms.values():
            gradients = mean_over_ranks(derivatives(term.value, featurizer, head), ranks)
            found += [term.value.detach(), *(g for g in gradients if g is not None)]
        found += [seen.labels, seen.domain_ids, seen.domain_losses.detach()]
    return found


@pytest.mark.slow
def test_ranks_may_differ_in_their_ignored_samples() -> None:
    expected = steps_on(ALONE)
    for found in on_ranks(2, steps_on):
        assert_close(found, expected, atol=1e-12, rtol=1e-12)
