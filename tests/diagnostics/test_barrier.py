"""Linear barriers on given risks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fishr.diagnostics import barrier
from fishr.errors import InputError


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
