"""The Fisher's diagonal, by the definition with labels drawn from the model and as a Gauss-Newton matrix."""

import torch
from cases import FLOAT64, oracle_gradients
from diagnostics.dense import TIGHT, Dense, dense
from torch.testing import assert_close

from fishr.diagnostics import fisher_diagonal, hessian_diagonal


def test_it_is_the_diagonal_of_the_gauss_newton_matrix(case: Dense) -> None:
    expected = torch.stack([matrix.diagonal() for matrix in case.gauss_newtons])
    found = fisher_diagonal(*case.arguments)
    assert_close(found.value, expected, **TIGHT)
    assert found.axes == ("domain", "parameter")


def test_under_cross_entropy_it_is_the_mean_square_over_labels_drawn_from_the_model() -> None:
    for head in ("linear", "three layers"):
        case = dense(head, "cross-entropy", (4, 4))
        expected = torch.zeros_like(case.diagonals)
        for domain, (features, _) in enumerate(case.parts):
            probabilities = case.head(features).softmax(1).detach()
            for label in range(3):
                labels = torch.full((len(features),), label)
                squares = oracle_gradients(case.head, features, labels, case.loss).detach().square()
                expected[domain] += (probabilities[:, label : label + 1] * squares).mean(0)
        assert_close(fisher_diagonal.of(case.curvature).value, expected, **TIGHT)


def test_it_is_the_hessian_for_a_linear_head_and_not_beyond() -> None:
    linear, deep = dense("linear", "cross-entropy", (4, 4)), dense("three layers", "cross-entropy", (4, 4))
    assert_close(fisher_diagonal.of(linear.curvature).value, hessian_diagonal.of(linear.curvature).value, **TIGHT)
    apart = fisher_diagonal.of(deep.curvature).value - hessian_diagonal.of(deep.curvature).value
    assert apart.abs().max() > 1e-4
    assert apart.dtype is FLOAT64
