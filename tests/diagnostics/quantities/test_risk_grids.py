"""Inconsistency on grids, against a flood fill written out."""

import itertools

import pytest
import torch
from cases import FLOAT64
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from fishr.diagnostics import barrier, inconsistency, inconsistency_pairs
from fishr.errors import InputError


def flood(risks: Tensor, center: tuple[int, ...], epsilon: float) -> Tensor:
    """The definition, point by point."""
    domains, shape = len(risks), risks.shape[1:]
    found = torch.zeros(domains, domains, dtype=risks.dtype)
    for a in range(domains):
        start, region, todo = risks[(a, *center)], set(), [center]
        while todo:
            point = todo.pop()
            outside = any(not 0 <= i < n for i, n in zip(point, shape, strict=True))
            if point in region or outside or risks[(slice(None), *point)].isnan().any():
                continue
            if (risks[(a, *point)] - start).abs() > epsilon:
                continue
            region.add(point)
            for axis, by in itertools.product(range(len(shape)), (-1, 1)):
                todo.append(tuple(i + by * (k == axis) for k, i in enumerate(point)))
        for b in range(domains):
            found[a, b] = max((risks[(b, *point)] - start).abs() for point in region)
    return found


@settings(max_examples=60)
@given(
    shape=st.sampled_from([(7,), (4, 5), (6, 3), (1, 4), (2, 3, 3)]),
    domains=st.integers(1, 3),
    epsilon=st.sampled_from([0.0, 0.3, 0.8, 5.0]),
    seed=st.integers(0, 10**6),
    missing=st.booleans(),
)
def test_it_is_the_definition(shape: tuple[int, ...], domains: int, epsilon: float, seed: int, missing: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    risks = torch.rand(domains, *shape, generator=generator, dtype=FLOAT64)
    center = tuple(int(torch.randint(n, (), generator=generator)) for n in shape)
    if missing:
        holes = torch.rand(domains, *shape, generator=generator) < 0.15
        holes[(slice(None), *center)] = False
        risks[holes] = torch.nan
    pairs = inconsistency_pairs(risks, center, epsilon)
    expected = flood(risks, center, epsilon)
    assert_close(pairs.value, expected)
    assert pairs.axes == ("domain", "domain")
    others = [expected[a, b] for a in range(domains) for b in range(domains) if a != b]
    assert_close(inconsistency(risks, center, epsilon).value, torch.stack([*others, torch.zeros(()).double()]).max())
    assert (pairs.value.diagonal() <= epsilon).all()


def test_a_valley_behind_a_ridge_does_not_count() -> None:
    risks = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 7.0]])
    assert inconsistency_pairs(risks, (0,), 0.1).value.tolist() == [[0.0, 0.0], [9.0, 0.0]]
    assert inconsistency_pairs(risks, (2,), 0.1).value.tolist() == [[0.0, 7.0], [7.0, 0.0]]


def test_not_evaluated_is_never_inside() -> None:
    nan = torch.nan
    risks = torch.tensor([[0.0, nan, 0.0], [0.0, 0.0, 7.0]])
    assert inconsistency(risks, (0,), 0.1).value == 0
    risks = torch.tensor([[0.0, 0.0, 0.0], [0.0, nan, 7.0]])
    assert inconsistency(risks, (0,), 0.1).value == 0


def test_the_same_domain_twice_is_consistent_up_to_epsilon() -> None:
    risks = torch.rand(1, 9, 9).repeat(2, 1, 1)
    assert inconsistency(risks, (4, 4), 0.25).value <= 0.25


@pytest.mark.parametrize(
    ("risks", "center", "epsilon", "message"),
    [
        (torch.zeros(2, 3, 3), (1,), 0.1, r"got center \(1,\) and risks of shape \(2, 3, 3\)"),
        (torch.zeros(2, 3), (3,), 0.1, "on it"),
        (torch.zeros(2, 3), (-1,), 0.1, "on it"),
        (torch.zeros(2), (), 0.1, "expected"),
        (torch.zeros(2, 3), (1,), -0.1, "epsilon"),
        (torch.zeros(2, 3), (1,), float("nan"), "epsilon"),
        (torch.full((2, 3), torch.nan), (1,), 0.1, "NaN at the center"),
    ],
)
def test_what_is_no_grid_is_refused(risks: Tensor, center: tuple[int, ...], epsilon: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        inconsistency(risks, center, epsilon)


def test_the_largest_rise_above_the_chord() -> None:
    risks = torch.tensor([[1.0, 4.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 2.0, 9.0]])
    assert_close(barrier(risks).value, torch.tensor([4 - 2 / 3, 0.0, 0.0]))


def test_positions_need_not_be_even() -> None:
    assert_close(barrier(torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([0.0, 0.9, 1.0])).value, torch.tensor([0.1]))


def test_points_that_were_not_evaluated_are_passed_over() -> None:
    nan = torch.nan
    assert_close(barrier(torch.tensor([[0.0, nan, 3.0, 0.0]])).value, torch.tensor([3.0]))
    assert barrier(torch.tensor([[0.0, torch.inf, 0.0]])).value.isinf().all()


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8), st.floats(-3, 3), st.floats(-3, 3))
def test_adding_a_line_changes_nothing_and_it_is_never_negative(values: list[float], a: float, b: float) -> None:
    risks = torch.tensor([values], dtype=torch.float64)
    line = a + b * torch.linspace(0, 1, len(values), dtype=torch.float64)
    found = barrier(risks).value
    assert found >= 0
    assert_close(barrier(risks + line).value, found, atol=1e-9, rtol=0.0)


@pytest.mark.parametrize(
    ("risks", "positions", "message"),
    [
        (torch.zeros(3), None, "expected \\[K, T\\]"),
        (torch.zeros(2, 1), None, "at least 2 points"),
        (torch.zeros(2, 3), torch.tensor([0.0, 1.0]), "expected one for each of the 3 points"),
        (torch.zeros(2, 3), torch.tensor([0.0, 0.5, 0.9]), "from 0 to 1"),
        (torch.tensor([[0.0, 1.0, torch.nan]]), None, "NaN at an end of the line"),
    ],
)
def test_what_is_no_line_is_refused(risks: torch.Tensor, positions: torch.Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        barrier(risks, positions)
