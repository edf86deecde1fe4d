"""The closed form of a linear head's Hessian, on each of its routes."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT, Dense, dense
from loss_cases import EVERY_LOSS
from torch import nn
from torch.testing import assert_close

from fishr.diagnostics import linear_hessian
from fishr.diagnostics.linear_hessian import LinearHessian


def wide(loss: str, samples: tuple[int, ...], bias: bool = True) -> Dense:
    """More features than samples, so that the span of the features is a true subspace."""
    case, total = EVERY_LOSS[loss], sum(samples)
    head = nn.Linear(9, case.outputs, bias=bias).to(FLOAT64)
    return Dense(head, torch.randn(total, 9, dtype=FLOAT64), case.labels(total), samples, case.loss)


@pytest.fixture(params=["Gram matrices and eigsh", "whole matrices and eigh"])
def routes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small heads on the routes of large ones."""
    if request.param.startswith("Gram"):
        monkeypatch.setattr(linear_hessian, "WHOLE_LIMIT", 0)
        monkeypatch.setattr(linear_hessian, "_EIGH_SIZE", 0)
        monkeypatch.setattr(linear_hessian, "_ELEMENTS", 7)
    return request.param


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("loss", EVERY_LOSS)
@pytest.mark.parametrize("samples", [(4, 6), (12, 3), (1, 2)])
def test_everything_is_that_of_the_dense_matrix(loss: str, bias: bool, samples: tuple[int, ...], routes: str) -> None:
    case = wide(loss, samples, bias)
    found, expected = case.curvature.hessians, case.hessians
    size = len(case.flat)
    vectors = torch.randn(size, 3, dtype=FLOAT64)
    for hessian, matrix in zip(found, expected, strict=True):
        assert isinstance(hessian, LinearHessian)
        assert hessian.size == size
        assert_close(hessian.whole, matrix, **TIGHT)
        assert_close(hessian.apply(vectors), matrix @ vectors, **TIGHT)
        assert_close(hessian.diagonal().value, matrix.diagonal(), **TIGHT)
        assert_close(hessian.trace().value, matrix.trace(), **TIGHT)
        assert_close(hessian.product(hessian).value, matrix.square().sum(), **TIGHT)
    assert_close(found[0].product(found[1]).value, (expected[0] * expected[1]).sum(), **TIGHT)
    assert ("Gram" in found[0].product(found[0]).route) or not routes.startswith("Gram")


@pytest.mark.parametrize("loss", ["cross-entropy", "binary"])
@pytest.mark.parametrize("samples", [(7,), (30,)])
def test_top_eigenpairs_on_both_sides_of_the_span(loss: str, samples: tuple[int, ...], routes: str) -> None:
    case = wide(loss, samples)
    (hessian,), (matrix,) = case.curvature.hessians, case.hessians
    found = hessian.top(2)
    expected = torch.linalg.eigvalsh(matrix).flip(0)[:2]
    assert_close(found.values, expected, **TIGHT)
    assert found.vectors.shape == (len(matrix), 2)
    assert_close(found.vectors.T @ found.vectors, torch.eye(2, dtype=FLOAT64), **TIGHT)
    assert_close(matrix @ found.vectors, found.vectors * found.values, **TIGHT)
    assert found.residuals.max() < 1e-8
    assert ("eigsh" in found.route) == routes.startswith("Gram")


def test_more_eigenvalues_than_the_span_holds_are_not_made_up() -> None:
    (hessian,) = wide("cross-entropy", (1,)).curvature.hessians
    found = hessian.top(8)
    assert len(found.values) == 3  # one sample, three outputs
    assert found.values[2].abs() < 1e-12  # a shift of all logits changes nothing


def test_quadratic_forms_of_gradients() -> None:
    case = wide("cross-entropy", (5, 4))
    curvature = case.curvature
    found = curvature.hessians[1].quadratic(curvature.seen.deltas[5:])
    gradients = case.gradients[1]
    assert_close(found, ((gradients @ case.hessians[1]) * gradients).sum(1), **TIGHT)


@pytest.mark.parametrize("samples", [(4, 6), (12, 3)])
def test_another_domains_hessian_between_the_basis_vectors_of_one(samples: tuple[int, ...]) -> None:
    case = wide("cross-entropy", samples)
    one, other = case.curvature.hessians
    small = one.reduced
    basis = one.lift(torch.eye(small.size, dtype=FLOAT64))
    assert_close(basis.T @ basis, torch.eye(small.size, dtype=FLOAT64), **TIGHT)
    assert_close(basis @ small.whole @ basis.T, case.hessians[0], **TIGHT)
    assert_close(other.onto(one).whole, basis.T @ case.hessians[1] @ basis, **TIGHT)


def test_a_loss_twice_as_large_is_curved_twice_as_much() -> None:
    case = dense("linear", "squared", (1, 5, 2))
    doubled = Dense(case.head, case.features, case.labels, case.sizes, lambda f, y: 2 * case.loss(f, y))
    for once, twice in zip(case.curvature.hessians, doubled.curvature.hessians, strict=True):
        assert_close(twice.whole, 2 * once.whole, **TIGHT)


def test_rows_in_any_order_give_the_same_matrix() -> None:
    case = wide("cross-entropy", (8,))
    order = torch.randperm(8)
    shuffled = Dense(case.head, case.features[order], case.labels[order], (8,), case.loss)
    assert_close(shuffled.curvature.hessians[0].whole, case.curvature.hessians[0].whole, **TIGHT)


def test_float32_is_computed_in_float32() -> None:
    case = wide("cross-entropy", (6,))
    curvature = Dense(case.head.float(), case.features.float(), case.labels, (6,), case.loss).curvature
    assert curvature.hessians[0].top(1).values.dtype is torch.float32
    assert curvature.hessians[0].product(curvature.hessians[0]).value.dtype is torch.float32
