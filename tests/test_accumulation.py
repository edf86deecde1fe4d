"""Micro-batches in a loop of one's own: the whole batch's penalty, gradient and average, one micro-batch's memory."""

import gc
import weakref
from typing import Any

import pytest
import torch
from cases import EXACT, FLOAT64, derivatives
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm
from torch.testing import assert_close

import fishr
from fishr.errors import InputError
from fishr.types import DomainBatch, Problem

PENALTY = fishr.Total(
    gap=fishr.Scaled(fishr.Fishr(ema=0.5, gain="debiased"), 3.0), rex=fishr.VREx(), irm=fishr.IRM(), risk=fishr.ERM()
)


def step(featurizer: nn.Module, used: nn.Module, head: nn.Module, batch: DomainBatch) -> tuple[Any, ...]:
    value, state = PENALTY(fishr.observe(used, head, batch), PENALTY.init(Problem.of(head, 3)), 0)
    return value.detach(), derivatives(value, featurizer, head), state["gap"].value, state["gap"].updates


@settings(max_examples=20)
@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=9).filter(lambda ids: len(set(ids)) > 1),
    st.integers(1, 12),
    st.booleans(),
)
def test_value_gradient_and_average_are_those_of_the_whole_batch(
    ids: list[int], micro_batches: int, deep: bool
) -> None:
    torch.manual_seed(len(ids))
    featurizer = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)).to(FLOAT64)
    head = (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)) if deep else nn.Linear(4, 2)).to(FLOAT64)
    batch = DomainBatch.of(torch.randn(len(ids), 3, dtype=FLOAT64), torch.randint(2, (len(ids),)), ids, number=3)
    found = step(featurizer, fishr.accumulate(featurizer, micro_batches), head, batch)
    for one, other in zip(found, step(featurizer, featurizer, head, batch), strict=True):
        assert_close(one, other, **EXACT)


def test_micro_batches_in_float32_agree_with_the_whole_batch_in_float64() -> None:
    torch.manual_seed(0)
    featurizer, head = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 2)
    batch = DomainBatch.of(torch.randn(9, 3), torch.randint(2, (9,)), [2, 0, 1, 0, 2, 1, 0, 0, 1], number=3)
    found = step(featurizer, fishr.accumulate(featurizer, 4), head, batch)
    wide = DomainBatch(batch.inputs.double(), batch.labels, batch.sizes)
    expected = step(featurizer.double(), featurizer, head.double(), wide)
    for one, other in zip((found[0], *found[1], found[2]), (expected[0], *expected[1], expected[2]), strict=True):
        assert_close(one.double(), other, atol=1e-6, rtol=1e-6)


def test_inputs_may_be_structures_and_are_left_as_they_are() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            inputs["a"].mul_(2)
            return self.layer(inputs["a"] + inputs["b"]).tanh()

    featurizer, a, b = Sum(), torch.randn(5, 3), torch.randn(5, 3)
    inputs = {"a": a.clone(), "b": b.clone()}
    found = fishr.accumulate(featurizer, 2)(inputs)
    assert torch.equal(inputs["a"], a)
    gradient = derivatives(found.square().sum(), featurizer)
    expected = derivatives(featurizer({"a": a.clone(), "b": b}).square().sum(), featurizer)
    assert torch.equal(inputs["a"], a)
    assert_close(gradient, expected)


class Moving(nn.Module):
    """Buffers that move in place and by assignment, and that the output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, rows: Tensor) -> Tensor:
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * rows.detach().mean(0)
        return rows * self.count.clone() - self.mean


@pytest.mark.parametrize(
    "layer", [lambda: nn.Dropout(0.5), lambda: nn.BatchNorm1d(4), Moving, lambda: spectral_norm(nn.Linear(4, 4))]
)
def test_random_layers_draw_once_and_buffers_move_once(layer: Any) -> None:
    """Against a plain loop over the same micro-batches, which keeps all activations."""
    torch.manual_seed(0)
    featurizer = nn.Sequential(nn.Linear(3, 4), layer(), nn.Tanh(), nn.Linear(4, 2)).to(FLOAT64)
    start, inputs = {k: v.clone() for k, v in featurizer.state_dict().items()}, torch.randn(9, 3, dtype=FLOAT64)
    weights = torch.randn(9, 2, dtype=FLOAT64)
    torch.manual_seed(1)
    plain = torch.cat([featurizer(part) for part in (inputs[:3], inputs[3:6], inputs[6:])])
    expected = derivatives((plain * weights).sum(), featurizer)
    after = {name: buffer.clone() for name, buffer in featurizer.named_buffers()}
    drawn = torch.rand(1)

    featurizer.load_state_dict(start)
    torch.manual_seed(1)
    found = fishr.accumulate(featurizer, 3)(inputs)
    assert torch.equal(found, plain)
    gradient = derivatives((found * weights).sum(), featurizer)
    assert_close(gradient, expected, **EXACT)
    assert_close(dict(featurizer.named_buffers()), after, **EXACT)
    assert torch.equal(torch.rand(1), drawn)


def test_activations_of_one_micro_batch_are_alive_at_a_time() -> None:
    alive, most = list[weakref.ref[Tensor]](), list[int]()

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 100), nn.Linear(100, 4)

        def forward(self, rows: Tensor) -> Tensor:
            hidden = self.first(rows).tanh()
            alive.append(weakref.ref(hidden))
            most.append(sum(other() is not None for other in alive))
            return self.second(hidden)

    featurizer, head = Wide(), nn.Linear(4, 2)
    batch = DomainBatch(torch.randn(16, 3), torch.randint(2, (16,)), (8, 8))
    gc.disable()
    try:
        value, _ = fishr.Fishr()(fishr.observe(fishr.accumulate(featurizer, 8), head, batch), (), 0)
        assert sum(other() is not None for other in alive) == 0
        value.backward()
    finally:
        gc.enable()
    assert len(most) == 16
    assert max(most) == 1


def gradients_on(ranks: fishr.Ranks) -> list[Tensor]:
    """Gradients of a step on this rank's share of 12 samples, two of each domain at a time; averaged by DDP."""
    torch.manual_seed(0)
    featurizer, head = (
        nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).to(FLOAT64),
        nn.Linear(4, 2).to(FLOAT64),
    )
    whole = DomainBatch(torch.randn(12, 3, dtype=FLOAT64), torch.randint(2, (12,)), (4, 4, 4))
    own = [ranks.share(rows) for part in (whole.inputs, whole.labels) for rows in part.split(4)]
    batch = DomainBatch(torch.cat(own[:3]), torch.cat(own[3:]), list(map(len, own[:3])))
    used = featurizer if ranks.alone else DistributedDataParallel(fishr.accumulate(featurizer, 3))
    value, _ = PENALTY(fishr.observe(used, head, batch, ranks=ranks), PENALTY.init(Problem.of(head, 3)), 0)
    value.backward()
    means = fishr.mean_over_ranks([p.grad for p in head.parameters()], ranks)
    return [p.grad for p in featurizer.parameters() if p.grad is not None] + [g for g in means if g is not None]


@pytest.mark.slow
def test_it_may_be_wrapped_for_several_processes() -> None:
    expected = gradients_on(fishr.Ranks())
    for found in on_ranks(2, gradients_on):
        assert len(found) == 6
        assert_close(found, expected, **EXACT)


def test_without_a_graph_it_runs_once_and_its_parameters_are_the_featurizers() -> None:
    calls = list[int]()
    featurizer = nn.Linear(3, 2)
    featurizer.register_forward_hook(lambda *_: calls.append(1))
    accumulated = fishr.accumulate(featurizer, 4)
    with torch.no_grad():
        accumulated(torch.zeros(8, 3))
    assert len(calls) == 4
    assert [id(p) for p in accumulated.parameters()] == [id(p) for p in featurizer.parameters()]


def test_no_micro_batch_is_refused() -> None:
    with pytest.raises(InputError, match="micro_batches: got 0, expected at least 1"):
        fishr.accumulate(nn.Identity(), 0)
