"""Sharpness: bounds from below, averages with their error, and the quadratic."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT, Dense, dense
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.diagnostics import Curvature, Estimation, sharpness_average, sharpness_quadratic, sharpness_worst

RHO = 0.3


def test_the_quadratic_is_that_of_the_largest_eigenvalue(case: Dense) -> None:
    tops = torch.stack([torch.linalg.eigvalsh(h)[-1] for h in case.hessians])
    assert_close(sharpness_quadratic.of(case.curvature, rho=RHO).value, RHO**2 / 2 * tops, **TIGHT)


@pytest.mark.slow
def test_worst_beats_every_point_that_was_tried_and_no_bound(case: Dense) -> None:
    found = sharpness_worst.of(case.curvature, rho=RHO)
    assert "a lower bound" in found.route
    directions = torch.randn(50, len(case.flat), dtype=FLOAT64)
    for domain, value in enumerate(found.value):
        tried = [case.risk(case.flat + RHO * d / d.norm(), domain) - case.risks[domain] for d in directions]
        assert value >= max(tried).detach() - 1e-9
    assert (found.value >= 0).all()


def test_worst_is_exact_for_a_quadratic() -> None:
    """R = mean of (w·z)², at w = 0: ρ²λ_max/2 of its Hessian."""
    head, features = nn.Linear(5, 1, bias=False).double(), torch.randn(12, 5).double()
    nn.init.zeros_(head.weight)

    def square(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.squeeze(1).square()

    data = (head, features, torch.zeros(12), (4, 8), square)
    found = sharpness_worst(*data, rho=RHO, steps=200, tolerance=0.0)
    assert_close(found.value, sharpness_quadratic(*data, rho=RHO).value, **TIGHT)
    assert found.error.max() < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("linear", "cross-entropy", (30, 12)),
        ("linear", "binary", (30, 12)),
        ("linear without bias", "multi-label", (1, 5, 2)),
        ("linear", "squared", (1, 5, 2)),
        ("three layers", "cross-entropy", (4, 4)),
        ("frozen first layer", "cross-entropy", (4, 4)),
        ("conv1d", "cross-entropy", (2, 3)),
    ],
)
def test_the_average_is_that_over_drawn_parameters(names: tuple[str, str, tuple[int, ...]]) -> None:
    case = dense(*names)
    found = sharpness_average(*case.arguments, Estimation(products=200, repeats=10), rho=RHO)
    draws = RHO * torch.randn(4000, len(case.flat), dtype=FLOAT64)
    with torch.no_grad():
        for domain, value in enumerate(found.value):
            risk = torch.func.vmap(lambda d, k=domain: case.risk(case.flat + d, k))
            rises = (risk(draws) + risk(-draws)) / 2 - case.risks[domain]
            own = rises.std() / 4000**0.5
            error = (own.square() + found.error[domain].square()).sqrt()
            assert (value - rises.mean()).abs() <= 5 * error
            assert error < 0.1 * rises.mean()


def test_drawn_outputs_of_linear_layers_leave_less_to_chance_than_drawn_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = dense("two layers", "binary", (30, 12))
    few = sharpness_average(*case.arguments, rho=RHO)
    assert few.route.startswith("pairs of opposite draws of the outputs of the linear layers")
    monkeypatch.setattr(Curvature, "layered", None)
    many = sharpness_average(*case.arguments, rho=RHO)
    assert "draws of the parameters" in many.route
    assert (few.value - many.value).abs().max() < 4 * (few.error + many.error).max()
    # A quarter of the draws would have twice the error.
    assert (few.error < many.error).all()


def test_logistic_losses_take_quadrature_exact_beyond_any_draw() -> None:
    case = dense("linear", "binary", (30, 12))
    found = sharpness_average.of(case.curvature, rho=RHO)
    assert "Gauss-Hermite" in found.route
    assert found.error.max() < 1e-10
    grid = torch.linspace(-9, 9, 20001, dtype=FLOAT64)
    weights = torch.exp(-grid.square() / 2)
    spreads = RHO * (case.features.square().sum(1) + 1).sqrt()
    logits = case.head(case.features).detach() + spreads.unsqueeze(1) * grid
    losses = torch.nn.functional.softplus(logits) - case.labels.unsqueeze(1) * logits
    rises = (losses * weights).sum(1) / weights.sum() - case.loss(case.head(case.features), case.labels).detach()
    assert_close(found.value, torch.stack([rises[:30].mean(), rises[30:].mean()]), **TIGHT)


def test_small_radii_see_the_trace() -> None:
    case = dense("linear", "binary", (30, 12))
    expected = 0.001**2 / 2 * torch.stack([h.trace() for h in case.hessians])
    assert_close(sharpness_average.of(case.curvature, rho=0.001).value, expected, atol=0.0, rtol=1e-4)
