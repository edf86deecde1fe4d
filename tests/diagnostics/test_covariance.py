"""Inner products of covariances and Hessians, whole and through Gram matrices."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch.testing import assert_close

from fishr.diagnostics import covariance
from fishr.diagnostics.covariance import covariance_hessian_products, covariance_inner_products


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 2048])
def test_both_routes_are_those_of_the_whole_matrices(case: Dense, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariance, "WHOLE_LIMIT", limit)
    monkeypatch.setattr(covariance, "_CHUNK", 3)
    flat, curved = torch.stack(case.covariances).flatten(1), torch.stack(case.hessians).flatten(1)
    inner, with_hessian = covariance_inner_products(case.curvature), covariance_hessian_products(case.curvature)
    assert_close(inner.value, flat @ flat.T, **TIGHT)
    assert_close(with_hessian.value, (flat * curved).sum(1), **TIGHT)
    assert ("whole" in inner.route) == ("whole" in with_hessian.route) == (limit > 0)


@pytest.mark.parametrize(("name", "limit"), [("GRAM_LIMIT", 7), ("GRADIENT_ELEMENTS", 100)])
def test_what_is_too_large_is_nan_and_says_why(name: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariance, "WHOLE_LIMIT", 0)
    monkeypatch.setattr(covariance, name, limit)
    seen = dense("two layers", "squared", (4, 4)).curvature
    for found in (covariance_inner_products(seen), covariance_hessian_products(seen)):
        assert found.value.isnan().all()
        assert found.route.startswith("not computed: ")
        assert found.route.endswith("take fewer samples")


def test_per_sample_gradients_of_a_linear_head_need_not_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covariance, "WHOLE_LIMIT", 0)
    monkeypatch.setattr(covariance, "GRADIENT_ELEMENTS", 1)
    case = dense("linear", "cross-entropy", (30, 12))
    flat = torch.stack(case.covariances).flatten(1)
    assert_close(covariance_inner_products(case.curvature).value, flat @ flat.T, **TIGHT)
