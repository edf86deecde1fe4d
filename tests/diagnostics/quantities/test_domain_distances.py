"""Distances between the domains' variances, covariances and Hessians."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from fishr.diagnostics import (
    Estimation,
    covariance_distances,
    hessian_cosines,
    hessian_diagonal_distance_scale_free,
    hessian_diagonal_distances,
    hessian_distances,
    variance_distance,
    variance_distance_scale_free,
    variance_distances,
)

DISTANCES = (variance_distances, covariance_distances, hessian_diagonal_distances, hessian_distances)


def pairs(matrices: list[Tensor] | Tensor) -> Tensor:
    return torch.stack([torch.stack([(a - b).square().sum() for b in matrices]) for a in matrices])


def test_they_are_those_of_the_dense_matrices(case: Dense) -> None:
    seen, (v, h) = case.curvature, (case.variances, case.diagonals)
    assert_close(variance_distances.of(seen).value, pairs(v), **TIGHT)
    assert_close(covariance_distances.of(seen).value, pairs(case.covariances), **TIGHT)
    assert_close(hessian_diagonal_distances.of(seen).value, pairs(h), **TIGHT)
    assert_close(hessian_distances.of(seen).value, pairs(case.hessians), **TIGHT)
    spread = torch.stack([(row - v.mean(0)).square().sum() for row in v]).mean()
    assert_close(variance_distance.of(seen).value, spread, **TIGHT)
    if v.abs().max() > 1e-12:
        assert_close(variance_distance_scale_free.of(seen).value, spread / v.mean(0).square().sum(), **TIGHT)
    spread = torch.stack([(row - h.mean(0)).square().sum() for row in h]).mean()
    assert_close(hessian_diagonal_distance_scale_free.of(seen).value, spread / h.mean(0).square().sum(), **TIGHT)
    flat = torch.stack(case.hessians).flatten(1)
    units = flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    assert_close(hessian_cosines.of(seen).value, units @ units.T, **TIGHT)


@pytest.mark.parametrize("head", ["linear", "two layers"])
def test_equal_domains_are_at_no_distance(head: str) -> None:
    case = dense(head, "cross-entropy", (1, 5, 2))
    features, labels = case.parts[1]
    arguments = (case.head, features.repeat(2, 1), labels.repeat(2), (5, 5), case.loss)
    for quantity in DISTANCES:
        assert quantity(*arguments).value.abs().max() < 1e-12
    assert_close(hessian_cosines(*arguments).value, torch.ones(2, 2).double(), **TIGHT)
    assert variance_distance_scale_free(*arguments).value.abs() < 1e-12


@pytest.mark.slow
@settings(max_examples=20)
@given(factor=st.floats(0.1, 10.0))
def test_a_loss_in_other_units_scales_distances_and_leaves_scale_free_ones(factor: float) -> None:
    case = dense("linear", "cross-entropy", (4, 4))
    scaled = (case.head, case.features, case.labels, case.sizes, lambda f, y: factor * case.loss(f, y))
    powers = {variance_distances: 4, covariance_distances: 4, hessian_diagonal_distances: 2, hessian_distances: 2}
    for quantity, power in powers.items():
        expected = factor**power * quantity(*case.arguments).value
        assert_close(quantity(*scaled).value, expected, atol=1e-9 * factor**power, rtol=1e-9)
    for quantity in (variance_distance_scale_free, hessian_diagonal_distance_scale_free, hessian_cosines):
        assert_close(quantity(*scaled).value, quantity(*case.arguments).value, **TIGHT)


@pytest.mark.slow
def test_estimates_keep_within_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    estimated = (
        hessian_distances,
        hessian_cosines,
        hessian_diagonal_distances,
        hessian_diagonal_distance_scale_free,
    )
    exact = [quantity(*case.arguments).value for quantity in estimated]
    case.grow(monkeypatch)
    for quantity, expected in zip(estimated, exact, strict=True):
        found = quantity(*case.arguments, Estimation(products=24, repeats=6))
        assert found.error is not None
        assert ((found.value - expected).abs() <= 4 * found.error + 1e-12).all()
