"""Domains that come interleaved, or are missing from a batch, against loops over samples in float64."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from attrs import evolve, frozen
from cases import EXACT, FLOAT64, derivatives, oracle_gradients
from gaps import linear_gap
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.observation import Observation, observe
from fishr.penalties import ERM, IRM, Average, Fishr, MovingAverage, Penalty, Scaled, Stateless, Total, VREx
from fishr.ranks import ALONE, Ranks, mean_over_ranks
from fishr.statistics.gap_blocks import GapRule
from fishr.types import DomainBatch, Problem

DOMAINS, GAMMA = 4, 0.7
Samples = dict[int, tuple[Tensor, Tensor]]
HEADS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(3, 2),
    "linear without bias": lambda: nn.Linear(3, 2, bias=False),
    "two layers": lambda: nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)),
}
FISHR = {
    f"{statistic} {gain} {ema}": Fishr(statistic, ema, gain)
    for statistic in ("variance", "second_moment")
    for gain, ema in (("unit_gradient", 0.0), ("unit_gradient", GAMMA), ("debiased", GAMMA), ("none", GAMMA))
}
OTHERS: dict[str, Penalty] = {
    "ERM": ERM(),
    "ERM over samples": ERM("samples"),
    "VREx": VREx(),
    "VREx of pairs": VREx("pairwise"),
    "IRM": IRM(),
    "covariance": Fishr("covariance"),
    "sums": Fishr(over_parameters="sum", over_domains="sum"),
}


class Model:
    """A featurizer and a head in float64, and their copies in another type."""

    def __init__(self, head: str, dtype: torch.dtype = FLOAT64) -> None:
        torch.manual_seed(0)
        self.featurizer, self.head = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).to(dtype), HEADS[head]().to(dtype)
        self.problem = Problem.of(self.head, DOMAINS)

    def observe(self, batch: DomainBatch, **settings: Any) -> Observation:
        return observe(self.featurizer, self.head, batch, **settings)

    def derivatives(self, value: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in derivatives(value, self.featurizer, self.head)])


def draw(ids: list[int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(len(ids), 3, dtype=FLOAT64, generator=generator)
    return inputs, torch.randint(2, (len(ids),), generator=generator), torch.tensor(ids)


def oracle(
    model: Model, batch: tuple[Tensor, Tensor, Tensor], memory: dict[str, dict[int, Tensor]]
) -> dict[str, Tensor]:
    """Every penalty's value by its definition, over a dict of the domains present; ``memory`` moves."""
    inputs, labels, ids = batch
    present = [k for k in range(DOMAINS) if (ids == k).any()]
    logits = model.head(model.featurizer(inputs))
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    gradients = oracle_gradients(model.head, model.featurizer(inputs), labels, CrossEntropy())
    risks = [losses[ids == k].mean() for k in present]
    scale = torch.ones((), dtype=FLOAT64, requires_grad=True)
    irm, statistics, covariances = [], {"variance": [], "second_moment": []}, []
    for k in present:
        risk = nn.functional.cross_entropy(scale * logits[ids == k], labels[ids == k])
        irm.append(torch.autograd.grad(risk, scale, create_graph=True)[0] ** 2)
        own = gradients[ids == k]
        mean = own.mean(0)
        statistics["variance"].append(((own - mean) ** 2).mean(0))
        statistics["second_moment"].append((own**2).mean(0))
        covariances.append((own - mean).T @ (own - mean) / len(own))

    def distance(rows: list[Tensor], divisor: float) -> Tensor:
        center = sum(rows) / len(rows)
        return sum(((row - center) ** 2).sum() for row in rows) / divisor

    size = gradients.shape[1]
    pairs = [(a - b) ** 2 for i, a in enumerate(risks) for b in risks[:i]]
    values = {
        "ERM": sum(risks) / len(risks),
        "ERM over samples": losses.mean(),
        "VREx": distance(risks, len(risks)),
        "VREx of pairs": sum(pairs),
        "IRM": sum(irm) / len(irm),
        "covariance": distance(covariances, len(present) * size**2),
        "sums": distance(statistics["variance"], 1.0),
    }
    for name, penalty in FISHR.items():
        history, rows = memory.setdefault(name, {}), []
        for k, value in zip(present, statistics[penalty.statistic], strict=True):
            before, count = history.get(k, (torch.zeros_like(value), 0))
            average = penalty.ema * before + (1 - penalty.ema) * value
            history[k] = average.detach(), count + 1
            divisors = {"unit_gradient": 1 - penalty.ema, "debiased": 1 - penalty.ema ** (count + 1), "none": 1.0}
            rows.append(average / divisors[penalty.gain])
        values[name] = distance(rows, len(present) * size)
    return values


steps = st.lists(
    st.lists(st.integers(0, DOMAINS - 1), min_size=3, max_size=9).filter(lambda ids: len(set(ids)) > 1),
    min_size=1,
    max_size=3,
)


@pytest.mark.slow
@settings(max_examples=15)
@given(steps, st.integers(0, 1000), st.sampled_from(list(HEADS)), st.sampled_from(["auto", "backpack", "functional"]))
def test_every_penalty_is_the_oracles_over_any_domains(
    steps: list[list[int]], seed: int, head: str, route: str
) -> None:
    agrees_with_the_oracle(steps, seed, head, route)


@pytest.mark.parametrize("head", HEADS)
def test_every_penalty_is_the_oracles_over_the_domains_present(head: str) -> None:
    agrees_with_the_oracle([[2, 0, 2, 0, 1], [3, 2, 2, 3], [0, 3, 3, 1, 0]], 0, head, "auto")


def agrees_with_the_oracle(steps: list[list[int]], seed: int, head: str, route: str) -> None:
    model, memory = Model(head), dict[str, dict[int, Tensor]]()
    penalty = Total(**FISHR, **OTHERS, scaled=Scaled(FISHR["variance debiased 0.7"], 3.0))
    state = penalty.init(model.problem)
    for step, ids in enumerate(steps):
        batch = draw(ids, seed + step)
        expected = oracle(model, batch, memory)
        expected["scaled"] = 3 * expected["variance debiased 0.7"]
        seen = model.observe(DomainBatch.of(*batch, number=DOMAINS), route=route)
        before = state
        terms, state = penalty.evaluate(seen, state, step)
        for name, value in expected.items():
            assert_close(terms[name].value, value, **EXACT, msg=lambda m, name=name: f"{name}: {m}")
            assert_close(model.derivatives(terms[name].value), model.derivatives(value), **EXACT)
        for name in FISHR:
            if isinstance(state[name], Average):
                for k in range(DOMAINS):
                    own = memory[name].get(k, (torch.zeros(model.problem.layout.size, dtype=FLOAT64), 0))
                    assert_close(state[name].value[k], own[0], **EXACT)
                    assert state[name].counts((k,)) == (own[1],)
                    if k not in ids:
                        assert torch.equal(state[name].value[k], before[name].value[k])


@pytest.mark.slow
@settings(max_examples=8)
@given(steps, st.integers(0, 1000), st.sampled_from(list(HEADS)))
def test_float32_agrees_with_the_oracle_in_float64(steps: list[list[int]], seed: int, head: str) -> None:
    model, single, memory = Model(head), Model(head, torch.float32), dict[str, dict[int, Tensor]]()
    model.featurizer.load_state_dict(single.featurizer.state_dict())
    model.head.load_state_dict(single.head.state_dict())
    penalty = Total(**FISHR, **OTHERS)
    state = penalty.init(single.problem)
    for step, ids in enumerate(steps):
        inputs, labels, domains = draw(ids, seed + step)
        inputs = inputs.float()
        expected = oracle(model, (inputs.double(), labels, domains), memory)
        seen = single.observe(DomainBatch.of(inputs, labels, domains, number=DOMAINS))
        terms, state = penalty.evaluate(seen, state, step)
        for name, value in expected.items():
            assert_close(terms[name].value.double(), value, atol=1e-6, rtol=1e-6)
            found, by_expected = single.derivatives(terms[name].value).double(), model.derivatives(value)
            assert (found - by_expected).norm() <= 1e-6 * max(1.0, float(by_expected.norm()))


@pytest.mark.slow
@settings(max_examples=20)
@given(st.data(), st.lists(st.integers(0, 3), min_size=3, max_size=8).filter(lambda ids: len(set(ids)) > 1))
def test_interleaving_changes_no_bit_and_another_order_rounding_alone(data: st.DataObject, ids: list[int]) -> None:
    model, (inputs, labels, domains) = Model("linear"), draw(ids, 5)
    pairs = {"halves": IRM("half_batches")} if min(map(ids.count, set(ids))) > 1 else {}
    penalty = Total(**FISHR, **OTHERS, **pairs)
    state = penalty.init(model.problem)

    def found(order: Tensor) -> tuple[Tensor, Tensor]:
        batch = DomainBatch.of(inputs[order], labels[order], domains[order], number=DOMAINS)
        value, _ = penalty(model.observe(batch), state, 0)
        return value.detach(), model.derivatives(value)

    ordered = domains.argsort(stable=True)
    # Any interleaving that keeps the order within each domain: positions of a shuffled list of the domains.
    places = data.draw(st.permutations(ids))
    queues = {k: iter(torch.nonzero(domains == k).flatten().tolist()) for k in set(ids)}
    interleaved = torch.tensor([next(queues[k]) for k in places])
    for one, other in zip(found(interleaved), found(ordered), strict=True):
        assert torch.equal(one, other)
    if not pairs:
        shuffled = torch.tensor(data.draw(st.permutations(range(len(ids)))))
        for one, other in zip(found(shuffled), found(ordered), strict=True):
            assert_close(one, other, atol=1e-12, rtol=1e-12)


def steps_on(ranks: Ranks) -> list[Tensor]:
    """Values, gradients and states of two steps in which ranks have samples of different domains."""
    found = list[Tensor]()
    for head in ("linear", "two layers"):
        model = Model(head)
        penalty = Total(**FISHR, **OTHERS)
        state = penalty.init(model.problem)
        # Domain 1 is on one of two ranks, domain 3 on none; then domains 0 and 2 change their places.
        for step, (ids, cut) in enumerate([([0, 0, 0, 2, 0, 0, 1, 1, 2, 2], 4), ([3, 3, 3, 1, 1, 1, 1, 3], 3)]):
            inputs, labels, domains = draw(ids, step)
            rows = slice(0, len(ids)) if ranks.alone else [slice(0, cut), slice(cut, None)][ranks.number]
            batch = DomainBatch.of(inputs[rows], labels[rows], domains[rows], number=DOMAINS)
            seen = model.observe(batch, ranks=ranks)
            terms, state = penalty.evaluate(seen, state, step)
            for name, term in terms.items():
                (gradient,) = mean_over_ranks([model.derivatives(term.value)], ranks)
                assert gradient is not None, name
                found += [term.value.detach(), gradient]
            found += [seen.domain_ids, seen.moments.mean.detach(), seen.domain_losses.detach()]
            found += [average.value for average in state.values() if isinstance(average, Average)]
    return found


@pytest.mark.slow
def test_a_rank_may_lack_a_domain() -> None:
    expected = steps_on(ALONE)
    for found in on_ranks(2, steps_on):
        assert_close(found, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (Fishr(), "^Fishr: got a batch with samples of 1 of 4 domains, expected at least 2 to compare; draw"),
        (Fishr(ema=0.5), "^Fishr: got a batch"),
        (Fishr("covariance"), "^Fishr: got a batch"),
        (VREx(), "^VREx: got a batch"),
        (Scaled(Fishr(ema=0.5), 0.0), "^Fishr: got a batch"),
        (Total(risk=ERM(), mine=Scaled(VREx(), 2.0)), "^mine: got a batch"),
    ],
)
@pytest.mark.parametrize("head", ["linear", "two layers"])
def test_too_few_domains_are_refused_with_a_way_out(penalty: Penalty, message: str, head: str) -> None:
    model = Model(head)
    seen = model.observe(DomainBatch.of(*draw([2, 2, 2], 0), number=DOMAINS))
    with pytest.raises(InputError, match=message):
        penalty(seen, penalty.init(model.problem), 0)


def test_own_functions_may_need_domains_too() -> None:
    def spread(seen: Observation) -> Tensor:
        return seen.domain_losses.var()

    spread.least_domains = 3  # type: ignore[attr-defined]
    model = Model("linear")
    with pytest.raises(InputError, match="expected at least 3"):
        Total(own=Stateless(spread))(model.observe(DomainBatch.of(*draw([0, 2, 2], 0), number=DOMAINS)), {"own": ()}, 0)


@frozen
class Spread:
    """A penalty of one's own with memory, which compares three domains and does not check that they are there."""

    least_domains: ClassVar[int] = 3

    def init(self, problem: Problem) -> Tensor:
        return torch.zeros(problem.domains, dtype=FLOAT64)

    def __call__(self, seen: Observation, state: Tensor, step: int) -> tuple[Tensor, Tensor]:
        rows = list(seen.present)
        average = 0.5 * state[rows] + 0.5 * seen.domain_losses
        return average.var(), state.index_copy(0, torch.tensor(rows), average.detach())


def test_a_penalty_of_ones_own_keeps_the_rows_of_missing_domains() -> None:
    model, penalty = Model("linear"), Total(own=Scaled(Spread(), 0.0))
    seen = model.observe(DomainBatch.of(*draw([3, 1, 0], 0), number=DOMAINS))
    _, state = penalty(seen, penalty.init(model.problem), 0)
    assert state["own"].nonzero().flatten().tolist() == [0, 1, 3]
    assert_close(state["own"][[0, 1, 3]], 0.5 * seen.domain_losses.detach())
    with pytest.raises(InputError, match=r"^Spread: got a batch with samples of 2 of 4 domains, expected at least 3"):
        Scaled(Spread(), 0.0)(model.observe(DomainBatch.of(*draw([3, 1], 0), number=DOMAINS)), state["own"], 0)


def test_the_fused_distance_has_no_row_for_a_missing_domain() -> None:
    with pytest.raises(InputError, match=r"sizes: got \(3, 0\), expected at least one sample in each domain"):
        linear_gap(torch.zeros(3, 2), torch.zeros(3, 4), (3, 0), GapRule())


def test_nothing_is_refused_where_nothing_is_computed() -> None:
    model = Model("linear")
    penalty, seen = Total(rex=Scaled(VREx(), 0.0)), model.observe(DomainBatch.of(*draw([1], 0), number=DOMAINS))
    assert penalty(seen, {"rex": ()}, 0)[0] == 0


def test_too_few_samples_are_refused_with_a_way_out() -> None:
    model, batch = Model("linear"), DomainBatch.of(*draw([0, 0, 2], 0), number=DOMAINS)
    with pytest.raises(InputError, match=r"got domains of \(2, 1\) samples.*form=\"squared\""):
        IRM("half_batches")(model.observe(batch), (), 0)
    for route in ("closed_form", "backpack"):
        with pytest.raises(InputError, match=r"at least 2 samples .*; .*unbiased"):
            Fishr(unbiased=True)(model.observe(batch, route=route), (), 0)


def test_a_batch_of_another_number_of_domains_is_refused() -> None:
    """Without ``number``, a batch that lacks the last domain seems to have fewer."""
    for head in HEADS:
        model, penalty = Model(head), Fishr(ema=0.5)
        with pytest.raises(InputError, match=r"got a statistic of shape \(3, \d+\), expected \(4, \d+\).*number="):
            penalty(model.observe(DomainBatch.of(*draw([0, 1, 2], 0))), penalty.init(model.problem), 0)


@pytest.mark.parametrize("gain", ["unit_gradient", "debiased", "none"])
def test_the_moving_average_of_a_missing_domain_stays(gain: str) -> None:
    average, value = MovingAverage(0.5, gain), torch.tensor([[2.0], [8.0]], dtype=FLOAT64)
    state = average.init(Problem.of(nn.Linear(1, 1, bias=False).double(), 3))
    first, state = average(value, state, (0, 2))
    second, state = average(value, state, (1, 2))
    assert state.counts((0, 1, 2)) == (1, 1, 2)
    assert (state.updates, state.missed) == (2, (1, 1, 0))
    # Domain 1 sees its first value in the second step, as domain 0 did in the first.
    assert second[0] == first[0]
    assert state.value.flatten().tolist() == [1.0, 1.0, 6.0]
    assert evolve(state, missed=None).counts((0, 1)) == (2, 2)
    with pytest.raises(InputError, match="moving average: got a statistic"):
        average(value, state, (1, 3))
    with pytest.raises(InputError, match="moving average: got a statistic"):
        average(value, state, (1,))
