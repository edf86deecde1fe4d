"""Moments of sums of outer products against each sample's gradient: values, first and second derivatives, memory."""

import pytest
import torch
from cases import FLOAT64, assert_same_moments
from memory import peak_of_live_tensors
from torch import Tensor

from fishr.statistics import outer_moments

SIZES = (2, 2, 1, 3)


def factors(places: int, samples: int = 8) -> tuple[Tensor, Tensor]:
    deltas, inputs = (torch.randn(samples, places, width, dtype=FLOAT64, requires_grad=True) for width in (2, 3))
    return deltas, inputs


def by_sample(deltas: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    gradients = torch.stack([d.T @ z for d, z in zip(deltas, inputs, strict=True)])
    domains = gradients.split(list(SIZES))
    mean = torch.stack([g.mean(0) for g in domains])
    return mean, torch.stack([((g - g.mean(0)) ** 2).mean(0) for g in domains])


@pytest.mark.parametrize("elements", [1, 80, 1 << 20])
@pytest.mark.parametrize("places", [1, 2, 4])
def test_moments_and_gradients_are_those_of_single_samples(
    places: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(outer_moments._ELEMENTS, "cpu", elements)
    given = factors(places)
    found, expected = outer_moments.outer_moments(*given, SIZES), by_sample(*given)
    assert_same_moments(found, expected, given)


def test_second_derivatives_are_there() -> None:
    assert torch.autograd.gradgradcheck(lambda *given: outer_moments.outer_moments(*given, SIZES), factors(2))


def test_memory_does_not_grow_by_samples_times_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(outer_moments._ELEMENTS, "cpu", 1)

    def step(samples: int) -> None:
        deltas, inputs = torch.randn(samples, 2, 50, requires_grad=True), torch.randn(samples, 2, 40)
        outer_moments.outer_moments(deltas, inputs, (samples,))[1].sum().backward()

    growth = (peak_of_live_tensors(step, 24) - peak_of_live_tensors(step, 8)) / 16
    assert growth < 50 * 40 / 5
