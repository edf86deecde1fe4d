"""Means of draws and the jackknife."""

import pytest
import torch
from cases import FLOAT64
from torch import Tensor
from torch.testing import assert_close

from fishr.diagnostics.uncertainty import Estimate, averaged, jackknife, together
from fishr.statistics.distances import pairwise_distances


def covered(value: Tensor, error: Tensor | None, truth: float) -> float:
    assert error is not None
    return float(((value - truth).abs() <= 2 * error).double().mean())


@pytest.mark.parametrize("count", [2, 4, 96])
def test_twice_the_error_of_a_mean_covers_it_in_95_of_100_cases(count: int) -> None:
    found = averaged(torch.randn(count, 20000, dtype=FLOAT64), "noise")
    assert abs(covered(found.value, found.error, 0.0) - 0.95) < 0.01
    assert f"{count} draws" in found.route


def test_a_smooth_function_loses_its_bias_and_keeps_its_coverage() -> None:
    found = averaged(torch.randn(8, 20000, dtype=FLOAT64) + 3, "noise")
    squared = jackknife(torch.square, found, route="")
    value, error = squared.value, squared.error
    assert abs(float(value.mean()) - 9) < 0.05 < abs(float(found.value.square().mean()) - 9)
    assert abs(covered(value, error, 9.0) - 0.95) < 0.02


def test_a_maximum_stays_in_its_range_with_its_bias_in_the_error() -> None:
    found = averaged(torch.randn(4, 20000, dtype=FLOAT64), "noise")
    clamped = jackknife(lambda mean: mean.clamp(min=0), found, smooth=False, route="")
    value, error = clamped.value, clamped.error
    assert (value >= 0).all()
    assert covered(value, error, 0.0) > 0.93


def test_independent_estimates_add_their_variances() -> None:
    pair = [averaged(torch.randn(40, 5000, dtype=FLOAT64), "noise") for _ in range(2)]
    error = jackknife(torch.add, *pair, route="").error
    assert error is not None
    assert_close(error.square(), sum(each.error.square() for each in pair), rtol=1e-9, atol=0)


def test_what_draws_have_in_common_cancels() -> None:
    draws = torch.randn(4, 6, dtype=FLOAT64)
    domains = together([averaged(draws, "a"), averaged(draws, "b"), averaged(draws + torch.randn(4, 6), "c")])
    found = jackknife(pairwise_distances, domains, route="")
    value, error = found.value, found.error
    assert error is not None
    assert torch.equal(value[:2, :2], torch.zeros(2, 2, dtype=FLOAT64))
    assert torch.equal(error[:2, :2], torch.zeros(2, 2, dtype=FLOAT64))
    assert error[0, 2] > 0


def test_exact_values_have_no_error_and_none_beside_estimates() -> None:
    exact = Estimate(torch.tensor(2.0, dtype=FLOAT64), "closed form")
    squared = jackknife(torch.square, exact, route="")
    assert (float(squared.value), squared.error) == (4.0, None)
    drawn = averaged(torch.tensor([1.0, 2.0, 3.0], dtype=FLOAT64), "noise")
    error = jackknife(torch.multiply, exact, drawn, route="").error
    assert drawn.error is not None
    assert_close(error, 2 * drawn.error)
    both = together([exact, drawn])
    error = jackknife(lambda values: values * 3, both, route="").error
    assert error is not None
    assert float(error[0]) < 1e-15 < float(error[1])
