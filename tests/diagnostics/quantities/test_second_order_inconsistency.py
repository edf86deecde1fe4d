"""Inconsistency to second order, by eigenvalues and by iterations."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.diagnostics import (
    inconsistency_diagonal_proxy,
    inconsistency_second_order,
    inconsistency_second_order_pairs,
    range_space,
)
from fishr.diagnostics.quantities import second_order_inconsistency

EPSILON, RIDGE = 0.2, 0.01


def oracle(case: Dense, matrices: list[Tensor]) -> Tensor:
    """[K, K] by the generalized eigenproblem on the dense range of H_A."""
    rows = []
    for a, own in enumerate(matrices):
        values, vectors = torch.linalg.eigh(own)
        kept = values > len(values) * torch.finfo(values.dtype).eps * values.max()
        span, inverse = vectors[:, kept], torch.diag(1 / (values[kept] + RIDGE * values.max()))
        for b, other in enumerate(matrices):
            ratio = torch.linalg.eigvals(inverse @ span.T @ other @ span).real.max()
            difference = case.risks[b] - case.risks[a]
            rows.append(torch.maximum(difference.abs(), (difference + EPSILON * ratio).abs()))
    return torch.stack(rows).view(len(matrices), -1)


def test_pairs_are_those_of_the_dense_hessians(case: Dense) -> None:
    found = inconsistency_second_order_pairs.of(case.curvature, epsilon=EPSILON, ridge=RIDGE)
    expected = oracle(case, case.hessians)
    assert_close(found.value, expected, atol=1e-7, rtol=1e-7)
    worst = inconsistency_second_order.of(case.curvature, epsilon=EPSILON, ridge=RIDGE)
    others = expected[~torch.eye(len(expected), dtype=torch.bool)]
    assert_close(worst.value, others.max() if len(others) else torch.zeros(()).double(), atol=1e-7, rtol=1e-7)
    assert f"ridge {RIDGE:g}" in found.route


def test_the_proxy_looks_along_the_axes(case: Dense) -> None:
    rows, h = [], case.diagonals
    for a in range(len(h)):
        for b in range(len(h)):
            used = h[a] > 0
            ratio = (h[b] / (h[a] + RIDGE * h[a].max()))[used].max()
            difference = case.risks[b] - case.risks[a]
            if a != b:
                rows.append(max(difference.abs(), (difference + EPSILON * ratio).abs()))
    found = inconsistency_diagonal_proxy.of(case.curvature, epsilon=EPSILON, ridge=RIDGE)
    assert_close(found.value, max(rows, default=torch.zeros(()).double()), atol=1e-7, rtol=1e-7)
    assert found.route.startswith("a proxy")


def test_it_is_the_grids_inconsistency_where_it_should_be() -> None:
    """Two quadratic bowls with the same centre: the region of A is an ellipse, and B is worst on its rim."""
    head = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(head.weight)
    scales = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]).double()

    def square(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.squeeze(1).square()

    found = inconsistency_second_order(head, scales, torch.zeros(4), (2, 2), square, epsilon=0.5, ridge=0.0)
    # R_A = (9x² + y²)/2 and R_B = (x² + 4y²)/2: λ_max(H_A⁻¹H_B) = 4 and λ_max(H_B⁻¹H_A) = 9.
    assert_close(found.value, torch.tensor(0.5 * 9).double(), **TIGHT)


def test_turned_bowls_deceive_the_proxy() -> None:
    head = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(head.weight)
    turned = torch.tensor([[1.0, 1.0], [0.1, -0.1], [0.1, 0.1], [1.0, -1.0]], dtype=torch.float64)

    def square(logits: Tensor, labels: Tensor) -> Tensor:
        return logits.squeeze(1).square()

    data = (head, turned, torch.zeros(4), (2, 2), square)
    proxy = inconsistency_diagonal_proxy(*data, epsilon=1.0, ridge=0.0).value
    assert_close(proxy, torch.tensor(1.0).double(), **TIGHT)
    assert_close(inconsistency_second_order(*data, epsilon=1.0, ridge=0.0).value, torch.tensor(100.0).double(), **TIGHT)


def test_iterations_give_the_same_within_their_error(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = dense("linear", "cross-entropy", (30, 12))
    expected = inconsistency_second_order_pairs(*linear.arguments, epsilon=EPSILON, ridge=RIDGE).value
    monkeypatch.setattr(range_space, "WHOLE_LIMIT", 0)
    found = inconsistency_second_order_pairs(*linear.arguments, epsilon=EPSILON, ridge=RIDGE)
    assert found.error is not None
    assert ((found.value - expected).abs() <= found.error + 1e-9).all()
    assert (found.error < 0.02 * expected.max()).all()
    assert "conjugate gradients" in found.route
    assert "Gauss-Newton" not in found.route


def test_large_heads_by_their_gauss_newton_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    case.grow(monkeypatch)
    found = inconsistency_second_order_pairs(*case.arguments, epsilon=EPSILON, ridge=RIDGE)
    expected = oracle(case, case.gauss_newtons)
    assert ((found.value - expected).abs() <= 2 * found.error + 1e-3 * expected).all()
    assert "Gauss-Newton matrix in the place of H" in found.route


def test_what_is_too_large_is_nan_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_space, "WHOLE_LIMIT", 0)
    monkeypatch.setattr(second_order_inconsistency, "SIZE_LIMIT", 5)
    case = dense("linear", "cross-entropy", (30, 12))
    for quantity in (inconsistency_second_order, inconsistency_second_order_pairs):
        found = quantity(*case.arguments)
        assert found.value.isnan().any()
        assert "not computed: 12 > 5 dimensions of curvature; take fewer samples" in found.route
