"""Hessians by products alone: exact products, and estimates within the error that they state."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT, Dense, dense
from torch.testing import assert_close

from fishr.diagnostics import Estimation
from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.diagnostics.uncertainty import Estimate

SPEND = Estimation(products=16, repeats=6, chunk=3)


def operator(case: Dense, domain: int = 0, **changes: object) -> OperatorHessian:
    return OperatorHessian(case.head, *case.parts[domain], case.loss, SPEND, **changes)


def within(found: Estimate, expected: torch.Tensor) -> None:
    """Within five standard errors, which are not so wide that anything would pass."""
    assert found.error is not None
    assert ((found.value - expected).abs() <= 5 * found.error + 1e-10).all()
    assert torch.linalg.vector_norm(found.error) < 0.5 * torch.linalg.vector_norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "loss"), [("three layers", "cross-entropy"), ("two layers", "multi-label"), ("tokens", "squared")]
)
def test_products_are_those_of_the_dense_matrices_also_in_chunks(head: str, loss: str) -> None:
    case = dense(head, loss, (7, 5))
    vectors = torch.randn(len(case.flat), 4, dtype=FLOAT64)
    for domain in (0, 1):
        hessian, gauss_newton = operator(case, domain), operator(case, domain, kind="ggn")
        assert hessian.size == len(case.flat)
        assert_close(hessian.apply(vectors), case.hessians[domain] @ vectors, **TIGHT)
        assert_close(gauss_newton.apply(vectors), case.gauss_newtons[domain] @ vectors, **TIGHT)


def test_estimates_keep_within_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    case.grow(monkeypatch)
    one, other = operator(case, 0), operator(case, 1)
    within(one.trace(), case.hessians[0].trace())
    within(one.product(one), case.hessians[0].square().sum())
    within(one.product(other), (case.hessians[0] * case.hessians[1]).sum())
    diagonal = one.diagonal()
    assert (diagonal.value - case.hessians[0].diagonal()).norm() <= 2 * diagonal.error.norm()


@pytest.mark.slow
def test_eigenvalues_keep_within_their_residuals() -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    found = operator(case).top(3)
    expected = torch.linalg.eigvalsh(case.hessians[0]).flip(0)[:3]
    assert ((found.values - expected).abs() <= found.residuals + 1e-10).all()
    assert (found.residuals < 1e-2 * found.values[0]).all()


def test_the_seed_alone_decides_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    case.grow(monkeypatch)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = operator(case).trace().value
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    assert torch.equal(operator(case).trace().value, first)
    other = OperatorHessian(case.head, *case.parts[0], case.loss, Estimation(16, 6, seed=1, chunk=3))
    assert not torch.equal(other.trace().value, first)


@pytest.mark.parametrize("kind", ["hessian", "ggn"])
def test_products_are_the_same_whether_graphs_are_kept_or_made_anew(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("two layers", "cross-entropy", (7, 5))
    vectors, kept = torch.randn(len(case.flat), 3, dtype=FLOAT64), operator(case, kind=kind)
    first = kept.apply(vectors)
    assert kept._kept is not None
    monkeypatch.setattr("fishr.diagnostics.operator_hessian._GRAPHS", 0)
    anew = operator(case, kind=kind)
    assert_close(anew.apply(vectors), first, **TIGHT)
    assert anew._kept is None
    # A product depends on no earlier one.
    assert_close(kept.apply(vectors[:, :1]), first[:, :1], **TIGHT)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6, 0.0])
def test_residuals_of_eigenvalues_keep_within_the_tolerance(tolerance: float) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    estimation = Estimation(tolerance=tolerance)
    found = OperatorHessian(case.head, *case.parts[0], case.loss, estimation).top(4)
    largest = torch.linalg.eigvalsh(case.hessians[0])[-1]
    assert found.residuals.max() <= (tolerance + 1e-9) * largest
    off = torch.linalg.vector_norm(case.hessians[0] @ found.vectors - found.vectors * found.values, dim=0)
    assert_close(off, found.residuals, **TIGHT)
    assert_close(found.vectors.T @ found.vectors, torch.eye(4, dtype=FLOAT64), **TIGHT)


def test_a_risk_without_curvature_has_eigenvalues_of_zero() -> None:
    head = torch.nn.Linear(4, 1).double()

    def linear(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.squeeze(1) * labels

    found = OperatorHessian(head, torch.randn(6, 4).double(), torch.randn(6).double(), linear).top(2)
    assert_close(found.values, torch.zeros(2).double())
    assert_close(found.residuals, torch.zeros(2).double())
