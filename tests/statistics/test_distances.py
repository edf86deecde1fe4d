"""Distances against loops over domains and parameters."""

import pytest
import torch
from cases import EXACT, FLOAT64
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fishr.statistics import distance_to_mean, pairwise_distances, scale_free_distance

STATISTIC = torch.tensor([[1.0, -2.0, 0.5], [4.0, 0.0, 0.25], [-1.0, 3.0, 2.0], [0.0, 0.0, 1.0]], dtype=FLOAT64)


@pytest.mark.parametrize("parameters", ["mean", "sum"])
@pytest.mark.parametrize("domains", ["mean", "sum"])
def test_distance_to_mean_is_the_loop(parameters: str, domains: str) -> None:
    rows, total = STATISTIC.tolist(), 0.0
    for row in rows:
        for p, entry in enumerate(row):
            total += (entry - sum(other[p] for other in rows) / 4) ** 2
    total /= (3 if parameters == "mean" else 1) * (4 if domains == "mean" else 1)
    assert distance_to_mean(STATISTIC, parameters, domains).item() == pytest.approx(total, rel=1e-12)


def test_pairwise_is_the_loop_and_its_mean_is_twice_the_distance_to_the_mean() -> None:
    expected = [
        [sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) for y in STATISTIC.tolist()] for x in STATISTIC.tolist()
    ]
    pairs = pairwise_distances(STATISTIC)
    assert_close(pairs, torch.tensor(expected, dtype=FLOAT64), **EXACT)
    assert_close(pairs.mean(), 2 * distance_to_mean(STATISTIC, "sum"), **EXACT)


def test_pairwise_of_domains_that_nearly_agree_keeps_its_digits_in_float32() -> None:
    statistic = torch.tensor([[1000.0], [1000.0 + 2**-10]])
    assert pairwise_distances(statistic)[0, 1].item() == 2**-20


def test_a_single_domain_is_at_no_distance() -> None:
    assert distance_to_mean(STATISTIC[:1]) == 0
    assert pairwise_distances(STATISTIC[:1]).tolist() == [[0.0]]


@given(st.floats(1e-3, 1e3), st.permutations(range(4)))
def test_scale_free_distance_does_not_see_scale_or_order(scale: float, order: list[int]) -> None:
    expected = distance_to_mean(STATISTIC, "sum") / STATISTIC.mean(0).square().sum()
    assert_close(scale_free_distance(scale * STATISTIC[order]), expected, **EXACT)


def test_distances_are_differentiable_to_zero() -> None:
    """Where the domains agree the gradient is zero and not nan."""
    same = torch.ones(3, 2, dtype=FLOAT64, requires_grad=True)
    total = distance_to_mean(same) + pairwise_distances(same).sum() + scale_free_distance(same)
    (gradient,) = torch.autograd.grad(total, [same])
    assert gradient.abs().max() == 0
