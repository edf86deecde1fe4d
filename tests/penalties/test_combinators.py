"""Laws of scaling and summing, and what a weight of zero means."""

from typing import Any, ClassVar

import pytest
import torch
from attrs import frozen
from cases import EXACT, FLOAT64, Featurizer, derivatives
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.observation import Observation, observe
from fishr.penalties import (
    ERM,
    IRM,
    Constant,
    Fishr,
    LinearSchedule,
    Penalty,
    Scaled,
    Stateless,
    StepSchedule,
    Total,
    VREx,
)
from fishr.penalties.combinators import has_memory, weight_at
from fishr.types import DomainBatch, Problem


@frozen
class Raises:
    """A stateless penalty that must not be called."""

    def init(self, problem: Problem) -> tuple[()]:
        return ()

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        raise AssertionError("computed")


@frozen
class Counter:
    """A penalty with memory: how often it was called, and whether with a graph."""

    def init(self, problem: Problem) -> dict[str, int]:
        return {"calls": 0, "graphs": 0}

    def __call__(self, seen: Observation, state: Any, step: int) -> tuple[Tensor, Any]:
        value = seen.logits.sum()
        return value, {"calls": state["calls"] + 1, "graphs": state["graphs"] + value.requires_grad}


PENALTIES = {
    "ERM": ERM(),
    "VREx": VREx(),
    "IRM": IRM(),
    "Fishr": Fishr(),
    "Fishr with memory": Fishr(ema=0.9),
    "covariance": Fishr("covariance"),
    "own": Stateless(lambda seen: seen.moments.mean.square().sum()),
}


class Model:
    """A featurizer, a head and batches."""

    def __init__(self, head: nn.Module | None = None) -> None:
        torch.manual_seed(1)
        self.featurizer = Featurizer((3,))
        self.head = (head or nn.Linear(3, 2)).to(FLOAT64)
        self.problem = Problem.of(self.head, 2)
        labels = torch.randint(2, (7,))
        self.batches = [DomainBatch(torch.randn(7, 3, dtype=FLOAT64), labels, (3, 4)) for _ in range(4)]

    def see(self, t: int = 0) -> Observation:
        return observe(self.featurizer, self.head, self.batches[t])

    def run(self, penalty: Penalty, steps: int = 3) -> list[Tensor]:
        """Values and gradients of some steps."""
        state, found = penalty.init(self.problem), []
        for t in range(steps):
            value, state = penalty(self.see(t), state, t)
            gradients = derivatives(value, self.featurizer, self.head) if value.requires_grad else []
            found.extend([value.detach(), *gradients])
        return found


@pytest.mark.parametrize("name", PENALTIES)
def test_scaling_by_one_is_nothing_and_scales_multiply(name: str) -> None:
    model, penalty = Model(), PENALTIES[name]
    plain = model.run(penalty)
    assert_close(model.run(Scaled(penalty, 1.0)), plain, **EXACT)
    assert_close(model.run(Scaled(Scaled(penalty, 3.0), 0.5)), [1.5 * x for x in plain], **EXACT)
    assert weight_at(Scaled(Scaled(penalty, 3.0), 0.5), 0) == 1.5


@pytest.mark.parametrize("name", PENALTIES)
def test_a_total_of_one_is_itself(name: str) -> None:
    model, penalty = Model(), PENALTIES[name]
    assert_close(model.run(Total(one=penalty)), model.run(penalty), **EXACT)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.permutations(list(PENALTIES)), st.integers(1, 4))
def test_a_total_is_the_sum_in_any_order_and_nested(names: list[str], cut: int) -> None:
    model = Model()
    alone = [model.run(PENALTIES[name]) for name in names]
    expected = [sum(parts) for parts in zip(*alone, strict=True)]
    assert_close(model.run(Total(**{n: PENALTIES[n] for n in names})), expected, **EXACT)
    nested = Total(
        left=Total(**{n: PENALTIES[n] for n in names[:cut]}), right=Total(**{n: PENALTIES[n] for n in names[cut:]})
    )
    assert_close(model.run(nested), expected, **EXACT)


def test_a_total_of_nothing_is_zero() -> None:
    model = Model()
    value, state = Total()(model.see(), {}, 0)
    assert (value.item(), state) == (0.0, {})


def test_terms_by_name_with_their_weights() -> None:
    model = Model()
    total = Total(risk=ERM(), rex=Scaled(VREx(), LinearSchedule(0.0, 10.0, 10)), fishr=Scaled(Fishr(ema=0.5), 2.0))
    state = total.init(model.problem)
    assert set(state) == {"risk", "rex", "fishr"}
    terms, after = total.evaluate(model.see(), state, 5)
    assert {name: term.weight for name, term in terms.items()} == {"risk": 1.0, "rex": 5.0, "fishr": 2.0}
    assert_close(terms["rex"].value, 5 * VREx()(model.see(), (), 5)[0], **EXACT)
    assert_close(total(model.see(), state, 5)[0], sum(term.value for term in terms.values()), **EXACT)
    assert after["fishr"].updates == 1
    assert state["fishr"].updates == 0


def test_a_weight_of_zero_computes_nothing_when_nothing_is_remembered() -> None:
    model = Model()
    for penalty in (Scaled(Raises(), 0.0), Scaled(Total(a=Raises(), b=Scaled(Raises(), 3.0)), 0.0)):
        value, _ = penalty(model.see(), penalty.init(model.problem), 0)
        assert value == 0
        assert not value.requires_grad

    def explode(inputs: Tensor) -> Tensor:
        raise AssertionError("computed")

    unread = observe(explode, model.head, model.batches[0])
    assert Scaled(Fishr(), StepSchedule(5, 0.0, 1.0))(unread, (), 4)[0] == 0


@pytest.mark.parametrize("head", [None, nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))])
def test_a_weight_of_zero_keeps_a_memory_up_as_if_it_had_weight(head: nn.Module | None) -> None:
    model = Model(head)
    quiet, loud = Scaled(Fishr(ema=0.9), StepSchedule(2, 0.0, 7.0)), Scaled(Fishr(ema=0.9), 7.0)
    first, second = quiet.init(model.problem), loud.init(model.problem)
    for t in range(4):
        value, first = quiet(model.see(t), first, t)
        expected, second = loud(model.see(t), second, t)
        assert_close(first.value, second.value, **EXACT)
        assert first.updates == second.updates == t + 1
        assert not first.value.requires_grad
        assert value.requires_grad is (t >= 2)
        assert_close(value.detach(), expected.detach() if t >= 2 else torch.zeros(()), **EXACT, check_dtype=False)


def test_a_weight_of_zero_reads_without_a_graph() -> None:
    model, penalty = Model(), Scaled(Counter(), StepSchedule(2, 0.0, 1.0))
    state = penalty.init(model.problem)
    for t in range(3):
        _, state = penalty(model.see(t), state, t)
    assert state == {"calls": 3, "graphs": 1}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("head", [None, nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2))])
@pytest.mark.parametrize("other", PENALTIES)
def test_a_weight_of_zero_does_not_spoil_the_graph_of_another_term(
    other: str, head: nn.Module | None, first: bool
) -> None:
    """Also where it is the first to read the features: in a loop of one's own the risk may well come after it."""
    model = Model(head)
    silent = {"silent": Scaled(Fishr(ema=0.9), 0.0)}
    terms = {**silent, "other": PENALTIES[other]} if first else {"other": PENALTIES[other], **silent}
    assert_close(model.run(Total(**terms)), model.run(PENALTIES[other]), **EXACT)


def test_a_silent_term_costs_no_second_forward_of_the_featurizer() -> None:
    model, calls = Model(), []
    seen = observe(lambda x: (calls.append(1), model.featurizer(x))[1], model.head, model.batches[0])
    total = Total(silent=Scaled(Fishr(ema=0.9), 0.0), risk=ERM(), irm=IRM())
    total(seen, total.init(model.problem), 0)
    assert len(calls) == 1


def test_a_function_is_a_penalty_once_wrapped() -> None:
    model = Model()
    value, state = Stateless(lambda seen: seen.logits.sum())(model.see(), (), 0)
    assert_close(value, model.see().logits.sum())
    assert state == ()
    for build in (lambda: Scaled(lambda seen: 0, 1.0), lambda: Total(mine=lambda seen: 0), lambda: Scaled(ERM, 1.0)):
        with pytest.raises(InputError, match=r"(penalty|mine): got .*expected a penalty.*Stateless"):
            build()


def test_a_number_is_a_constant_schedule() -> None:
    assert Scaled(ERM(), 3).schedule == Constant(3.0)
    assert isinstance(Total(self=ERM(), terms=ERM()).terms, dict)  # any name will do


@frozen
class Compares(Raises):
    """A penalty of one's own that needs three domains."""

    least_domains: ClassVar[int] = 3


def test_domains_that_are_too_few_for_a_term_are_refused_by_its_name() -> None:
    few, enough = (Problem.of(nn.Linear(2, 2), domains) for domains in (2, 3))
    for penalty, name in (
        (Total(mine=Compares()), "mine"),
        (Total(rex=VREx(), mine=Scaled(Compares(), 2.0)), "mine"),
        (Scaled(Compares(), 2.0), "Compares"),
    ):
        with pytest.raises(InputError, match=f"{name}: got 2 training domains, expected at least 3 to compare"):
            penalty.init(few)
        penalty.init(enough)
    Total(mine=Raises()).init(Problem.of(nn.Linear(2, 2), 1))


@pytest.mark.parametrize(
    ("state", "expected"),
    [((), False), ({}, False), (None, False), ({"a": (), "b": {"c": ()}}, False), (0, True), ({"a": ((), 0)}, True)],
)
def test_what_a_memory_is(state: Any, expected: bool) -> None:
    assert has_memory(state) is expected
