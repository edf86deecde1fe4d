"""Spectral densities, from all eigenvalues and by Lanczos quadrature."""

import pytest
import torch
from diagnostics.dense import dense
from torch.testing import assert_close

from fishr.diagnostics import Estimation, dense_hessian, spectral_density


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
    monkeypatch.setattr(dense_hessian, "WHOLE_LIMIT", 5)
    found = spectral_density(*case.arguments, Estimation(products=4, repeats=30), points=512)
    assert found.error is not None
    for (grid, density), (_, error), hessian in zip(found.value, found.error, case.hessians, strict=True):
        mean, width = torch.linalg.eigvalsh(hessian).mean(), grid[1] - grid[0]
        slack = 5 * (error * grid.abs()).sum() * width
        assert (torch.trapezoid(density * grid, grid) - mean).abs() <= slack
        assert_close(torch.trapezoid(density, grid), torch.tensor(1.0).double(), atol=0.1, rtol=0.0)


def test_a_spectrum_of_one_value_is_drawn_too() -> None:
    head = torch.nn.Linear(1, 1, bias=False).double()
    features = torch.ones(3, 1).double()
    found = spectral_density(head, features, torch.zeros(3), (3,), lambda f, y: f.squeeze(1).square())
    assert found.value.isfinite().all()
