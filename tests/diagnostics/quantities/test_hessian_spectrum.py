"""Diagonal, trace, eigenvalues and effective rank of each domain's Hessian."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch.testing import assert_close

from fishr.diagnostics import (
    Estimation,
    effective_rank,
    hessian_diagonal,
    hessian_trace,
    spectral_density,
    top_eigenvalues,
)


def test_they_are_those_of_the_dense_hessians(case: Dense) -> None:
    seen = case.curvature
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
    assert_close(effective_rank.of(case.curvature).value[0], torch.tensor(1.0).double(), **TIGHT)


def test_large_heads_are_estimated_within_their_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    case.grow(monkeypatch)
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


@pytest.mark.parametrize(
    ("head", "route"), [("two layers", "closed form of linear layers"), ("conv1d", "BackPACK DiagHessian")]
)
def test_a_chain_of_known_layers_has_an_exact_trace_however_large(
    head: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = dense(head, "cross-entropy", (1, 5, 2))
    monkeypatch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    found = hessian_trace(*case.arguments)
    assert found.error is None
    assert route in found.route
    assert_close(found.value, case.diagonals.sum(1), **TIGHT)


def test_it_holds_all_eigenvalues_once() -> None:
    case = dense("three layers", "cross-entropy", (4, 4))
    found = spectral_density(*case.arguments, points=4000)
    for (grid, density), hessian in zip(found.value, case.hessians, strict=True):
        values = torch.linalg.eigvalsh(hessian)
        assert_close(torch.trapezoid(density, grid), torch.tensor(1.0).double(), atol=0.02, rtol=0.0)
        assert_close(torch.trapezoid(density * grid, grid), values.mean(), atol=0.02 * float(values.max()), rtol=0.0)
        assert grid[0] < values[0]
        assert grid[-1] > values[-1]
    assert found.error is None


def test_lanczos_finds_the_same_mass_within_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    case.grow(monkeypatch, 5)
    found = spectral_density(*case.arguments, Estimation(products=4, repeats=30), points=512)
    assert found.error is not None
    for (grid, density), (_, error), hessian in zip(found.value, found.error, case.hessians, strict=True):
        mean, width = torch.linalg.eigvalsh(hessian).mean(), grid[1] - grid[0]
        slack = 5 * (error * grid.abs()).sum() * width
        assert (torch.trapezoid(density * grid, grid) - mean).abs() <= slack
        assert_close(torch.trapezoid(density, grid), torch.tensor(1.0).double(), atol=0.1, rtol=0.0)


def test_the_largest_eigenvalues_have_their_share_whatever_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    exact = spectral_density(*case.arguments, points=2000).value
    case.grow(monkeypatch, 5)
    found = spectral_density(*case.arguments, points=2000).value
    for (grid, density), (other, expected) in zip(found, exact, strict=True):
        assert_close(torch.trapezoid(density, grid), torch.tensor(1.0).double(), atol=0.02, rtol=0.0)
        upper = grid > grid[-1] / 2
        mass, share = torch.trapezoid(density[upper], grid[upper]), torch.trapezoid(expected[upper], other[upper])
        assert_close(mass, share, atol=1e-4, rtol=1e-2)


def test_a_spectrum_of_one_value_is_drawn_too() -> None:
    head = torch.nn.Linear(1, 1, bias=False).double()
    features = torch.ones(3, 1).double()
    found = spectral_density(head, features, torch.zeros(3), (3,), lambda f, y: f.squeeze(1).square())
    assert found.value.isfinite().all()
