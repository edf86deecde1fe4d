"""Top eigenspaces and the means of Hessian diagonals."""

import pytest
import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch import nn
from torch.testing import assert_close

from fishr.diagnostics import eigenspace_overlaps, hessian_mean_gap, linear_hessian
from fishr.losses import BinaryCrossEntropy

LARGE = (("linear", "cross-entropy", (30, 12)), ("three layers", "cross-entropy", (4, 4)))


@pytest.mark.parametrize("names", LARGE)
def test_overlaps_are_those_of_the_dense_eigenvectors(names: tuple[str, str, tuple[int, ...]]) -> None:
    case = dense(*names)
    bases = [torch.linalg.eigh(h)[1].flip(1)[:, :2] for h in case.hessians]
    expected = torch.stack([torch.stack([(a.T @ b).square().sum() / 2 for b in bases]) for a in bases])
    found = eigenspace_overlaps.of(case.curvature, rank=2)
    assert_close(found.value, expected, **TIGHT)
    assert_close(found.value.diagonal(), torch.ones(2).double(), **TIGHT)
    assert found.value[0, 1] < 0.999


def test_eigenvectors_of_zero_are_left_out_everywhere() -> None:
    """One sample and two outputs have one direction of curvature."""
    head, features = nn.Linear(3, 2, bias=False).double(), torch.randn(5, 3).double()
    found = eigenspace_overlaps(head, features, torch.tensor([0, 1, 0, 1, 0]), (1, 4), rank=3)
    assert found.route.startswith("top 1 of 3 eigenvectors")
    assert_close(found.value.diagonal(), torch.ones(2).double(), **TIGHT)
    assert 0 <= found.value[0, 1] <= 1


def test_domains_apart_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_hessian, "_EIGH_SIZE", 0)
    head = nn.Linear(40, 1, bias=False).double()
    features = torch.zeros(20, 40).double()
    features[:10, :20], features[10:, 20:] = torch.randn(10, 20).double(), torch.randn(10, 20).double()
    found = eigenspace_overlaps(head, features, torch.randint(2, (20,)), (10, 10), BinaryCrossEntropy(), rank=2)
    assert_close(found.value, torch.eye(2).double(), **TIGHT)
    assert "eigsh" in found.route


def test_the_gap_between_arithmetic_and_geometric_mean(case: Dense) -> None:
    raised = case.diagonals.clamp(min=1e-6 * float(case.diagonals.max()))
    arithmetic, geometric = raised.mean(0), raised.prod(0) ** (1 / len(raised))
    found = hessian_mean_gap.of(case.curvature)
    assert_close(found.value, (arithmetic / geometric).log().sum(), atol=1e-7, rtol=1e-7)
    assert found.value >= -1e-12
    assert "of the entries raised to 1e-06 of the largest" in found.route


def test_equal_domains_have_no_gap_and_flat_directions_count_most() -> None:
    case = dense("linear", "cross-entropy", (4, 4))
    features, labels = case.parts[0]
    same = hessian_mean_gap(case.head, features.repeat(2, 1), labels.repeat(2), (4, 4))
    assert same.value.abs() < 1e-12
    flat = features.clone()
    flat[:, 0] = 0
    apart = hessian_mean_gap(case.head, torch.cat([features, flat]), labels.repeat(2), (4, 4))
    closer = hessian_mean_gap(case.head, torch.cat([features, 2 * features]), labels.repeat(2), (4, 4))
    assert apart.value > closer.value > same.value


def test_the_error_of_an_overlap_is_that_of_its_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("three layers", "cross-entropy", (30, 20))
    exact = eigenspace_overlaps.of(case.curvature, rank=2).value
    case.grow(monkeypatch)
    found = eigenspace_overlaps.of(case.curvature, rank=2)
    assert found.error is not None
    assert (found.error.diagonal() == 0).all()
    assert 0 < found.error[0, 1] < 1e-2
    assert abs(found.value - exact)[0, 1] <= found.error[0, 1]


def test_an_eigenspace_without_a_gap_is_arbitrary_and_says_so() -> None:
    """A's two eigenvalues are equal, so that the first eigenvector is any vector of the plane."""
    head = nn.Linear(2, 1, bias=False).double()
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 1.0]]).double()

    def square(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.squeeze(1).square()

    found = eigenspace_overlaps(head, features, torch.zeros(4), (2, 2), square, rank=1)
    assert found.error is not None
    assert found.error[0, 1] > 0.1
    assert eigenspace_overlaps(head, features, torch.zeros(4), (2, 2), square, rank=2).error.max() < 1e-9
