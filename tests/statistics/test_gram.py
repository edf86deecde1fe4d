"""Distances between full covariances against matrices that are built whole."""

import pytest
import torch
from cases import EXACT, FLOAT64
from torch import Tensor
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.statistics import (
    covariance_products,
    distance_to_mean_of_products,
    linear_gram,
    pairwise_distances_of_products,
)

SIZES = (4, 1, 3)


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


@pytest.mark.parametrize("bias", [True, False])
def test_gram_matrix_of_outer_products(bias: bool) -> None:
    deltas, features = torch.randn(4, 2, dtype=FLOAT64), torch.randn(4, 3, dtype=FLOAT64)
    parts = [torch.einsum("nc,nf->ncf", deltas, features).flatten(1), deltas]
    gradients = torch.cat(parts if bias else parts[:1], 1)
    assert_close(linear_gram(deltas, features, bias), gradients @ gradients.T, **EXACT)


def test_a_shared_shift_of_the_gradients_changes_second_moments_alone() -> None:
    gradients = torch.randn(8, 5, dtype=FLOAT64)
    shifted = gradients + 3.0
    before, after = (covariance_products(g @ g.T, SIZES) for g in (gradients, shifted))
    assert_close(after, before, atol=1e-8, rtol=1e-8)
    raw = [covariance_products(g @ g.T, SIZES, centered=False) for g in (gradients, shifted)]
    assert (raw[0] - raw[1]).abs().min() > 1


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="sizes: got"):
        covariance_products(torch.eye(5), (2, 2))
