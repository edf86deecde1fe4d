"""tr(H⁻¹C) by eigenvalues and by conjugate gradients."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch import Tensor
from torch.testing import assert_close

from fishr.diagnostics import Estimation, range_space, takeuchi, takeuchi_diagonal
from fishr.diagnostics.hessian import DenseHessian
from fishr.diagnostics.quantities.information_criterion import takeuchi_by_solving

RIDGE = 0.02


def oracle(hessian: Tensor, covariance: Tensor, ridge: float = RIDGE) -> Tensor:
    values, vectors = torch.linalg.eigh(hessian)
    shares = torch.einsum("pi,pq,qi->i", vectors, covariance, vectors)
    kept = values > len(values) * torch.finfo(values.dtype).eps * values.max()
    return (shares[kept] / (values[kept] + ridge * values.max())).sum()


def test_it_is_the_trace_on_the_range_of_the_dense_hessian(case: Dense) -> None:
    pairs = zip(case.hessians, case.covariances, strict=True)
    found = takeuchi.of(case.curvature, ridge=RIDGE)
    assert_close(found.value, torch.stack([oracle(h, c) for h, c in pairs]), **TIGHT)
    assert found.error is None
    assert "ridge 0.02·λ_max" in found.route


def test_the_diagonal_form(case: Dense) -> None:
    h = case.diagonals.clamp(min=0)
    expected = (case.variances / (h + RIDGE * h.amax(1, keepdim=True))).sum(1)
    assert_close(takeuchi_diagonal.of(case.curvature, ridge=RIDGE).value, expected, **TIGHT)


def test_a_model_that_is_right_has_as_many_as_its_parameters_that_count() -> None:
    head, features = torch.nn.Linear(3, 3).double(), torch.randn(20000, 3).double()
    labels = torch.distributions.Categorical(logits=head(features).detach()).sample()
    found = takeuchi(head, features, labels, (20000,), ridge=1e-9)
    assert abs(float(found.value) - 8) < 0.3  # 12 parameters less the shifts of all logits


@pytest.mark.parametrize("names", [("linear", "cross-entropy", (30, 12)), ("linear", "binary", (30, 12))])
def test_conjugate_gradients_keep_within_their_error(
    names: tuple[str, str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = dense(*names)
    monkeypatch.setattr(range_space, "WHOLE_LIMIT", 0)
    found = takeuchi(*case.arguments, Estimation(products=512), ridge=RIDGE)
    expected = torch.stack([oracle(h, c) for h, c in zip(case.hessians, case.covariances, strict=True)])
    assert found.error is not None
    assert ((found.value - expected).abs() <= 5 * found.error).all()
    assert (found.error < 0.1 * expected).all()
    assert found.route.startswith("conjugate gradients for 512 random signs, seed 0")


def test_the_covariance_is_that_of_centred_gradients() -> None:
    gradients, matrix = torch.randn(40, 4).double() + 5, torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    spend = Estimation(products=512)
    found = takeuchi_by_solving(DenseHessian(matrix), lambda w: gradients.T @ w, 40, 0.5, 0.1, spend)
    centered = gradients - gradients.mean(0)
    expected = torch.trace(torch.linalg.solve(matrix + 0.5 * torch.eye(4).double(), centered.T @ centered / 40))
    assert (found.value - expected).abs() <= 5 * found.error < 0.5 * expected


@pytest.mark.slow
def test_other_heads_by_their_gauss_newton_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    case.grow(monkeypatch)
    found = takeuchi(*case.arguments, Estimation(products=256), ridge=RIDGE)
    tops = [torch.linalg.eigvalsh(g)[-1] for g in case.gauss_newtons]
    matrices = zip(case.gauss_newtons, tops, case.covariances, strict=True)
    eye = torch.eye(len(case.flat)).double()
    expected = torch.stack([torch.trace(torch.linalg.solve(g + RIDGE * t * eye, c)) for g, t, c in matrices])
    assert found.error is not None
    assert ((found.value - expected).abs() <= 5 * found.error).all()
    assert (found.error < 0.1 * expected).all()
    assert found.route.startswith("Gauss-Newton matrix in the place of H, ")
