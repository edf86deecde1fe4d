"""Inverses on the range of a matrix."""

import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT, dense
from torch.testing import assert_close

from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.diagnostics.range_space import compact, whitener, whole_if_small


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


def test_what_is_known_by_products_alone_loses_its_negative_eigenvalues() -> None:
    case = dense("three layers", "cross-entropy", (4, 4))
    found = compact(OperatorHessian(case.head, *case.parts[0], case.loss))
    assert_close(found.apply(torch.eye(len(case.flat), dtype=FLOAT64)), case.gauss_newtons[0], **TIGHT)
    assert whole_if_small(found) is None
