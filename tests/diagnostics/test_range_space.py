"""Inverses on the range of a matrix."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT, dense
from torch.testing import assert_close

from fishr.diagnostics.range_space import compact, largest_of, null_space, whitener, whole_if_small


def test_the_whitener_squares_to_the_pseudoinverse() -> None:
    half = torch.randn(6, 3, dtype=FLOAT64)
    matrix = half @ half.T
    root = whitener(matrix, ridge=0.0)
    assert_close(root @ root.T, torch.linalg.pinv(matrix), **TIGHT)
    assert root.shape == (6, 3)


def test_the_ridge_is_a_share_of_the_largest_eigenvalue_and_negative_ones_drop() -> None:
    root = whitener(torch.diag(torch.tensor([-7.0, 0.0, 1.0, 4.0]).double()), ridge=0.5)
    assert_close(root.abs().sum(0).square(), torch.tensor([1 / 3, 1 / 6]).double(), **TIGHT)
    assert whitener(-torch.eye(3), ridge=0.1).shape == (3, 0)


def test_what_is_known_by_products_alone_loses_its_negative_eigenvalues(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (4, 4))
    case.grow(monkeypatch)
    found = compact(case.curvature, 0)
    assert_close(found.apply(torch.eye(len(case.flat), dtype=FLOAT64)), case.gauss_newtons[0], **TIGHT)
    assert whole_if_small(found) is None


def test_linear_layers_have_the_whole_gauss_newton_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (4, 4))
    monkeypatch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    assert_close(whole_if_small(compact(case.curvature, 1)), case.gauss_newtons[1], **TIGHT)


@pytest.mark.parametrize("rank", [0, 1, 3, 6])
def test_the_null_space_is_that_of_the_eigenvalues(rank: int) -> None:
    half = torch.randn(6, rank, dtype=FLOAT64)
    half[2] = 0
    matrix = half @ half.T
    values, vectors = torch.linalg.eigh(matrix)
    expected = vectors[:, values < 1e-10]
    found = null_space(matrix)
    assert found.shape == expected.shape
    assert_close(found @ found.T, expected @ expected.T, **TIGHT)


def test_the_largest_eigenvalue_alone_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    half = torch.randn(30, 30, dtype=FLOAT64)
    expected = torch.linalg.eigvalsh(half @ half.T)[-1]
    monkeypatch.setattr("fishr.diagnostics.range_space._EIGH_SIZE", 10)
    assert_close(largest_of(half @ half.T), expected, **TIGHT)
