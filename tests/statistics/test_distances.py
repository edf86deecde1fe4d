"""Distances against loops over domains and parameters, and of covariances against matrices that are built whole."""

import pytest
import torch
from cases import EXACT, FLOAT64
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.statistics import (
    covariance_products,
    distance_to_mean,
    distance_to_mean_of_products,
    pairwise_distances,
    pairwise_distances_of_products,
    scale_free_distance,
)

STATISTIC = torch.tensor([[1.0, -2.0, 0.5], [4.0, 0.0, 0.25], [-1.0, 3.0, 2.0], [0.0, 0.0, 1.0]], dtype=FLOAT64)
SIZES = (4, 1, 3)


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


def matrices(gradients: Tensor, centered: bool) -> Tensor:
    """[K, P, P]."""
    made = []
    for domain in gradients.split(list(SIZES)):
        rows = domain - domain.mean(0) if centered else domain
        made.append(rows.T @ rows / len(rows))
    return torch.stack(made)


@pytest.mark.parametrize("centered", [True, False])
def test_everything_about_whole_matrices_follows_from_the_gram_matrix(centered: bool) -> None:
    gradients = torch.randn(8, 5, dtype=FLOAT64, requires_grad=True)
    whole = matrices(gradients, centered)
    products = covariance_products(gradients @ gradients.T, SIZES, centered)
    assert_close(products, torch.einsum("apq,bpq->ab", whole, whole), **EXACT)
    pairs = torch.stack([torch.stack([(a - b).square().sum() for b in whole]) for a in whole])
    assert_close(pairwise_distances_of_products(products), pairs, **EXACT)
    expected = sum((m - whole.mean(0)).square().sum() for m in whole) / 3
    found = distance_to_mean_of_products(products)
    assert_close(found, expected, **EXACT)
    (by_expected,) = torch.autograd.grad(expected, [gradients], retain_graph=True)
    (by_found,) = torch.autograd.grad(found, [gradients])
    assert by_expected.abs().max() > 1e-3
    assert_close(by_found, by_expected, **EXACT)


def test_a_shared_shift_of_the_gradients_changes_second_moments_alone() -> None:
    gradients = torch.randn(8, 5, dtype=FLOAT64)
    shifted = gradients + 3.0
    before, after = (covariance_products(g @ g.T, SIZES) for g in (gradients, shifted))
    assert_close(after, before, atol=1e-8, rtol=1e-8)
    raw = [covariance_products(g @ g.T, SIZES, centered=False) for g in (gradients, shifted)]
    assert (raw[0] - raw[1]).abs().min() > 1


def test_sizes_that_do_not_fit_the_gram_matrix_are_refused() -> None:
    with pytest.raises(InputError, match="sizes: got"):
        covariance_products(torch.eye(5), (2, 2))
