"""Whole Hessians by rows of ordinary autograd."""

import torch
from diagnostics.dense import TIGHT, Dense
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.diagnostics.hessian import DenseHessian, dense_hessian


def test_it_is_the_second_derivative(case: Dense) -> None:
    for (features, labels), expected in zip(case.parts, case.hessians, strict=True):
        assert_close(dense_hessian(case.head, features, labels, case.loss), expected, **TIGHT)
    assert all(p.grad is None for p in case.head.parameters())


def test_a_parameter_that_the_risk_is_linear_in_has_a_row_of_zeros() -> None:
    head = nn.Linear(2, 1).double()

    def linear(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.squeeze(1) * labels

    found = dense_hessian(head, torch.randn(4, 2).double(), torch.randn(4).double(), linear)
    assert_close(found, torch.zeros(3, 3).double())


def test_a_matrix_answers_as_itself() -> None:
    half = torch.randn(6, 6, dtype=torch.float64)
    one, other = DenseHessian(half + half.T), DenseHessian(half @ half.T)
    values, vectors = torch.linalg.eigh(one.whole)
    found = one.top(2)
    assert_close(found.values, values[[5, 4]], **TIGHT)
    assert_close((found.vectors * vectors[:, [5, 4]]).sum(0).abs(), torch.ones(2).double(), **TIGHT)
    assert_close(one.top(3).first(2).values, found.values, **TIGHT)
    assert_close(one.product(other).value, torch.trace(one.whole @ other.whole), **TIGHT)
    assert_close(one.trace().value, values.sum(), **TIGHT)
    assert_close(one.product(one).value, values.square().sum(), **TIGHT)
