"""Diagonal, trace, eigenvalues and effective rank of each domain's Hessian."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch.testing import assert_close

from fishr.diagnostics import (
    Estimation,
    dense_hessian,
    effective_rank,
    hessian_diagonal,
    hessian_trace,
    top_eigenvalues,
)


def test_they_are_those_of_the_dense_hessians(case: Dense) -> None:
    seen = case.seen
    traces = torch.stack([h.trace() for h in case.hessians])
    norms = torch.stack([h.square().sum() for h in case.hessians])
    eigenvalues = torch.stack([torch.linalg.eigvalsh(h).flip(0)[:3] for h in case.hessians])
    assert_close(hessian_diagonal.of(seen).value, case.diagonals, **TIGHT)
    assert_close(hessian_trace.of(seen).value, traces, **TIGHT)
    assert_close(effective_rank.of(seen).value, traces.square() / norms, **TIGHT)
    found = top_eigenvalues.of(seen, rank=3)
    assert_close(found.value, eigenvalues[:, : found.value.shape[1]], **TIGHT)
    assert found.error is not None
    assert found.error.max() < 1e-10


def test_the_effective_rank_of_equal_eigenvalues_is_their_number() -> None:
    case = dense("linear", "binary", (1, 5, 2))
    assert_close(effective_rank.of(case.seen).value[0], torch.tensor(1.0).double(), **TIGHT)


def test_large_heads_are_estimated_within_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    monkeypatch.setattr(dense_hessian, "WHOLE_LIMIT", 10)
    spend = Estimation(products=20, repeats=6)
    diagonal, trace, rank, top = (
        quantity(*case.arguments, spend)
        for quantity in (hessian_diagonal, hessian_trace, effective_rank, top_eigenvalues)
    )
    traces = torch.stack([h.trace() for h in case.hessians])
    norms = torch.stack([h.square().sum() for h in case.hessians])
    for found, expected in ((trace, traces), (rank, traces.square() / norms)):
        assert ((found.value - expected).abs() <= 5 * found.error).all()
        assert (found.error < 0.5 * expected).all()
    assert (diagonal.value - case.diagonals).norm() <= 2 * diagonal.error.norm() < case.diagonals.norm()
    exact = torch.stack([torch.linalg.eigvalsh(h).flip(0)[:5] for h in case.hessians])
    assert ((top.value - exact).abs() <= top.error + 1e-10).all()
    assert "curvlinops xtrace" in trace.route
    assert "curvlinops xdiag" in diagonal.route
    assert "scipy eigsh" in top.route


def test_a_chain_that_backpack_knows_has_an_exact_trace_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("two layers", "cross-entropy", (1, 5, 2))
    monkeypatch.setattr(dense_hessian, "WHOLE_LIMIT", 10)
    found = hessian_trace(*case.arguments)
    assert found.error is None
    assert "BackPACK DiagHessian" in found.route
    assert_close(found.value, case.diagonals.sum(1), **TIGHT)
