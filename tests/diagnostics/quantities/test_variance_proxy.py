"""Gradient variance as a proxy of curvature."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch.testing import assert_close

from fishr.diagnostics import (
    Estimation,
    covariance_hessian_cosine,
    variance_hessian_cosine,
    variance_hessian_error,
)


def test_cosines_and_errors_are_those_of_the_dense_matrices(case: Dense) -> None:
    seen, (v, h) = case.curvature, (case.variances, case.diagonals)
    single = torch.tensor(case.sizes) == 1  # without variance, and so without cosine
    cosine = torch.nn.functional.cosine_similarity(v, h, dim=1).masked_fill(single, torch.nan)
    assert_close(variance_hessian_cosine.of(seen).value, cosine, equal_nan=True, **TIGHT)
    relative = torch.linalg.vector_norm(v - h, dim=1) / torch.linalg.vector_norm(h, dim=1)
    assert_close(variance_hessian_error.of(seen).value, relative, **TIGHT)
    pairs = zip(case.covariances, case.hessians, strict=True)
    whole = [torch.nn.functional.cosine_similarity(c.flatten(), m.flatten(), dim=0) for c, m in pairs]
    expected = torch.stack(whole).masked_fill(single, torch.nan)
    assert_close(covariance_hessian_cosine.of(seen).value, expected, equal_nan=True, **TIGHT)


def test_a_model_that_is_right_has_a_covariance_like_its_hessian() -> None:
    """Labels drawn from the head itself: C is then H in expectation."""
    head = torch.nn.Linear(3, 3).double()
    features = torch.randn(20000, 3).double()
    labels = torch.distributions.Categorical(logits=head(features).detach()).sample()
    arguments = (head, features, labels, (20000,))
    assert covariance_hessian_cosine(*arguments).value > 0.998
    assert variance_hessian_cosine(*arguments).value > 0.998
    assert variance_hessian_error(*arguments).value < 0.05
    shuffled = (head, features, labels[torch.randperm(20000)], (20000,))
    assert variance_hessian_error(*shuffled).value > variance_hessian_error(*arguments).value


def test_estimates_keep_within_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    exact = [quantity(*case.arguments).value for quantity in (variance_hessian_cosine, variance_hessian_error)]
    case.grow(monkeypatch)
    spend = Estimation(products=20, repeats=6)
    for quantity, expected in zip((variance_hessian_cosine, variance_hessian_error), exact, strict=True):
        found = quantity(*case.arguments, spend)
        assert ((found.value - expected).abs() <= 4 * found.error).all()
