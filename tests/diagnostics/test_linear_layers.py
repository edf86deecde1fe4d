"""Gauss-Newton matrices of linear layers, against dense ones sample by sample."""

import pytest
import torch
from cases import FLOAT64, HEADS, Twice
from diagnostics.dense import TIGHT, Dense, dense
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.diagnostics import fisher_diagonal, inconsistency_second_order_pairs, range_space, takeuchi
from fishr.diagnostics.linear_layers import is_piecewise_linear
from fishr.losses import CrossEntropy

LAYERED = (
    ("two layers", "cross-entropy"),
    ("three layers", "multi-label"),
    ("three layers", "squared"),
    ("in-place activation", "cross-entropy"),
    ("frozen first layer", "cross-entropy"),
    ("functions in place", "binary"),
    ("linear in a sequence", "cross-entropy"),
)
RIDGE = 0.02


class Tied(nn.Module):
    """A weight that is used once more where no layer is called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(features))) @ self.first.weight


@pytest.mark.parametrize(("head", "loss"), LAYERED)
def test_matrix_diagonal_and_gram_are_the_dense_ones(head: str, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense(head, loss, (4, 3))
    # A sample at a time, as where products are large.
    monkeypatch.setattr("fishr.diagnostics.linear_layers._ELEMENTS", 1)
    found = case.curvature.layered
    assert found is not None
    for own, expected, (features, _) in zip(found, case.gauss_newtons, case.parts, strict=True):
        assert_close(own.whole, expected, **TIGHT)
        assert_close(own.diagonal(), expected.diagonal(), **TIGHT)
        jacobians = torch.autograd.functional.jacobian(lambda t, z=features: case.logits(t, z), case.flat).flatten(0, 1)
        assert_close(own.jacobian_gram.flatten(0, 1).flatten(1), jacobians @ jacobians.T, **TIGHT)
    assert_close(fisher_diagonal.of(case.curvature).value, torch.stack([g.diagonal() for g in case.gauss_newtons]))


@pytest.mark.parametrize("head", ["tokens", "conv1d", "layer norm of tokens", "0-dim parameter", "spectral norm"])
def test_other_heads_have_none(head: str) -> None:
    case, module = HEADS[head], HEADS[head].head(3).eval()
    other = Dense(module, case.inputs(7), torch.randint(3, (7,)), (4, 3), CrossEntropy())
    assert other.curvature.layered is None


@pytest.mark.parametrize("module", [Tied, Twice])
def test_weights_that_are_used_elsewhere_are_noticed(module: type[nn.Module]) -> None:
    head = module().to(FLOAT64)
    other = Dense(head, torch.randn(7, 3, dtype=FLOAT64), torch.randint(3, (7,)), (4, 3), CrossEntropy())
    assert other.curvature.layered is None


def test_only_chains_without_bends_are_piecewise_linear() -> None:
    for name, expected in (("two layers", True), ("three layers", False), ("functions in place", False)):
        assert is_piecewise_linear(HEADS[name].head(3)) is expected


def grown(case: Dense, patch: pytest.MonkeyPatch) -> Dense:
    """Take the routes of a head that is too large for eigenvalues of whole matrices."""
    patch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    patch.setattr(range_space, "WHOLE_LIMIT", 10)
    return case


def criterion(matrix: Tensor, covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > 1e-12 * values[-1]
    shares = (vectors * (covariance @ vectors)).sum(0)
    return (shares[kept] / (values[kept] + RIDGE * values[-1])).sum()


@pytest.mark.parametrize("route", ["Gram matrix", "Cholesky factor"])
@pytest.mark.parametrize(("head", "loss"), [("three layers", "cross-entropy"), ("two layers", "multi-label")])
def test_the_takeuchi_criterion_of_large_heads_is_exact(
    head: str, loss: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = grown(dense(head, loss, (9, 4)), monkeypatch)
    if route != "Gram matrix":
        monkeypatch.setattr("fishr.diagnostics.quantities.information_criterion.GRAM_LIMIT", 0)
    found = takeuchi(*case.arguments, ridge=RIDGE)
    expected = [criterion(g, c) for g, c in zip(case.gauss_newtons, case.covariances, strict=True)]
    assert_close(found.value, torch.stack(expected), **TIGHT)
    assert found.error is None
    assert found.route.startswith("Gauss-Newton matrix in the place of H, ")
    assert route in found.route


def test_what_has_no_cholesky_factor_is_solved_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is not convex in the logits, whose Gauss-Newton matrix has negative eigenvalues; and no ridge."""
    plain = dense("two layers", "squared", (9, 4))
    far = Dense(plain.head, plain.features, 5 * plain.labels, plain.sizes, plain.loss)
    case = grown(far, monkeypatch)
    assert not case.curvature.of_logits.convex
    assert "conjugate gradients" in takeuchi(*case.arguments, ridge=RIDGE).route
    assert "conjugate gradients" in inconsistency_second_order_pairs(*case.arguments, ridge=RIDGE).route
    flat = grown(dense("two layers", "cross-entropy", (1, 5, 2)), monkeypatch)
    assert "Cholesky factor" in takeuchi(*flat.arguments, ridge=0.0).route
    assert inconsistency_second_order_pairs(*flat.arguments, ridge=0.0).value.isfinite().all()


def test_inconsistency_leaves_out_where_a_domain_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second domain alone has the third feature, along which the first one would change without end."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).to(FLOAT64)
    features = torch.randn(60, 3, dtype=FLOAT64)
    features[:30, 2] = 0
    case = grown(Dense(head, features, torch.randint(3, (60,)), (30, 30), CrossEntropy()), monkeypatch)
    found = inconsistency_second_order_pairs(*case.arguments, epsilon=0.2, ridge=RIDGE)
    for a, b in ((0, 1), (1, 0)):
        values, vectors = torch.linalg.eigh(case.gauss_newtons[a])
        kept = values > 1e-12 * values[-1]
        root = vectors[:, kept] / (values[kept] + RIDGE * values[-1]).sqrt()
        ratio = torch.linalg.eigvalsh(root.T @ case.gauss_newtons[b] @ root)[-1]
        difference = case.risks[b] - case.risks[a]
        expected = torch.maximum(difference.abs(), (difference + 0.2 * ratio).abs())
        assert found.error is not None
        assert (found.value[a, b] - expected).abs() <= found.error[a, b] + 1e-9
        assert found.error[a, b] < 0.01 * expected
    assert "Cholesky factor" in found.route
    # The same without the projection is far off.
    whole = torch.linalg.eigvals(
        torch.linalg.solve(
            case.gauss_newtons[0]
            + RIDGE * torch.linalg.eigvalsh(case.gauss_newtons[0])[-1] * torch.eye(len(case.flat)),
            case.gauss_newtons[1],
        )
    ).real.max()
    assert 0.2 * whole > 1.5 * found.value[0, 1]
