"""The three gains against a plain loop, and where gradient flows."""

import pytest
import torch
from cases import EXACT, FLOAT64
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.penalties import Average, MovingAverage
from fishr.types import Problem

DECAYS = st.floats(0.0, 0.999)
NUMBERS = st.lists(st.floats(-10, 10), min_size=1, max_size=6)


def start() -> Average:
    return Average(torch.zeros(1, 1, dtype=FLOAT64), 0)


@given(DECAYS, NUMBERS, st.sampled_from(["unit_gradient", "debiased", "none"]))
def test_every_gain_is_the_plain_loop(decay: float, numbers: list[float], gain: str) -> None:
    average, state, loop = MovingAverage(decay, gain), start(), 0.0
    for t, number in enumerate(numbers, start=1):
        loop = decay * loop + (1 - decay) * number
        divisor = {"unit_gradient": 1 - decay, "debiased": 1 - decay**t, "none": 1.0}[gain]
        value, state = average(torch.full((1, 1), number, dtype=FLOAT64), state)
        assert value.item() == pytest.approx(loop / divisor, rel=1e-9, abs=1e-9)
        assert state.value.item() == pytest.approx(loop, rel=1e-9, abs=1e-9)
        assert state.updates == t


@given(DECAYS, st.integers(1, 4))
def test_only_the_newest_value_carries_gradient_and_the_unit_gain_all_of_it(decay: float, steps: int) -> None:
    values = [torch.full((1, 1), float(t), dtype=FLOAT64, requires_grad=True) for t in range(steps)]
    shares = {"unit_gradient": 1.0, "debiased": (1 - decay) / (1 - decay**steps), "none": 1 - decay}
    for gain, share in shares.items():
        state = start()
        for value in values:
            smoothed, state = MovingAverage(decay, gain)(value, state)
        assert not state.value.requires_grad
        gradients = torch.autograd.grad(smoothed, values, allow_unused=True)
        assert gradients[:-1] == (None,) * (steps - 1)
        assert gradients[-1].item() == pytest.approx(share)


def test_golden_values_of_the_unit_gain() -> None:
    """γ = 0.5 and values 1, 1: ṽ = 0.5, 0.75 and v̂ = 1, 1.5, on the way to 1/(1−γ) = 2."""
    average, state = MovingAverage(0.5), start()
    one = torch.ones(1, 1, dtype=FLOAT64)
    seen = []
    for _ in range(30):
        value, state = average(one, state)
        seen.append(value.item())
    assert seen[:2] == [1.0, 1.5]
    assert seen[-1] == pytest.approx(2.0)


def test_a_constant_is_its_own_debiased_average() -> None:
    average, state = MovingAverage(0.9, "debiased"), start()
    for _ in range(5):
        value, state = average(torch.full((1, 1), 7.0, dtype=FLOAT64), state)
        assert_close(value.item(), 7.0, **EXACT)


def test_the_previous_state_is_left_as_it_was() -> None:
    first = start()
    _, second = MovingAverage(0.5)(torch.ones(1, 1, dtype=FLOAT64), first)
    MovingAverage(0.5)(torch.ones(1, 1, dtype=FLOAT64), second)
    assert (first.value.item(), second.value.item(), first.updates, second.updates) == (0.0, 0.5, 0, 1)


def test_the_first_state_fits_the_problem() -> None:
    state = MovingAverage(0.5).init(Problem.of(nn.Linear(3, 2).to(FLOAT64), 4))
    assert (tuple(state.value.shape), state.value.dtype, state.updates) == ((4, 8), FLOAT64, 0)


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(InputError, match="decay: got"):
        MovingAverage(decay)


def test_an_unknown_gain_or_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match="gain: got 'twice', expected one of"):
        MovingAverage(0.5, "twice")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"got a statistic of shape \(2, 1\), expected \(1, 1\)"):
        MovingAverage(0.5)(torch.ones(2, 1, dtype=FLOAT64), start())
