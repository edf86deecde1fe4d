"""Errors of estimated quantities: twice the error covers the dense Hessian's value in about 95 of 100 seeds."""

import pytest
import torch
from diagnostics.dense import Dense, dense
from torch import Tensor, nn

from fishr import diagnostics
from fishr.diagnostics import Curvature, Estimation, covariance
from fishr.diagnostics.operator_hessian import OperatorHessian, inner_products

pytestmark = pytest.mark.slow

SEEDS = 60
NAMES = (
    "hessian_diagonal",
    "hessian_trace",
    "effective_rank",
    "variance_hessian_cosine",
    "variance_hessian_error",
    "covariance_hessian_cosine",
    "hessian_diagonal_distances",
    "hessian_diagonal_distance_scale_free",
    "hessian_distances",
    "hessian_cosines",
    "takeuchi_diagonal",
    "hessian_mean_gap",
    "inconsistency_diagonal_proxy",
)
# Maxima and thresholds of noisy diagonals, whose errors also hold their bias.
WIDER = ("takeuchi_diagonal", "hessian_mean_gap", "inconsistency_diagonal_proxy")


@pytest.fixture(scope="module")
def case() -> Dense:
    return dense("three layers", "cross-entropy", (30, 20))


@pytest.fixture(scope="module")
def exact(case: Dense) -> dict[str, Tensor]:
    seen = case.curvature
    return {name: getattr(diagnostics, name).of(seen).value for name in NAMES}


@pytest.fixture(scope="module")
def estimated(case: Dense, exact: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Values and errors of every seed, [seeds, ...], as of a head too large for its whole Hessian."""
    found = dict[str, list[tuple[Tensor, Tensor]]]()
    with pytest.MonkeyPatch.context() as patch:
        case.grow(patch)
        patch.setattr(covariance, "WHOLE_LIMIT", 10)
        for seed in range(SEEDS):
            seen = Curvature.of(*case.arguments, Estimation(seed=seed))
            for name in NAMES:
                quantity = getattr(diagnostics, name).of(seen)
                found.setdefault(name, []).append((quantity.value, quantity.error))
    return {
        name: (torch.stack([value for value, _ in pairs]), torch.stack([error for _, error in pairs]))
        for name, pairs in found.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_twice_the_error_covers_the_truth_and_is_no_wider_than_it_must_be(
    name: str, exact: dict[str, Tensor], estimated: dict[str, tuple[Tensor, Tensor]]
) -> None:
    values, errors = estimated[name]
    off, errors = (values - exact[name]).abs().view(SEEDS, -1), errors.view(SEEDS, -1)
    random = errors.amax(0) > 0
    off, errors = off[:, random], errors[:, random]
    assert 0.87 <= float((off <= 2 * errors).double().mean()) <= 1
    wide = errors.median(0).values / off.square().mean(0).sqrt()
    assert 0.6 < float(wide.median()) < (4 if name in WIDER else 2)


@pytest.mark.parametrize(
    ("name", "own"), [("hessian_distances", 0.0), ("hessian_diagonal_distances", 0.0), ("hessian_cosines", 1.0)]
)
def test_a_domain_beside_itself_is_exact(name: str, own: float, estimated: dict[str, tuple[Tensor, Tensor]]) -> None:
    values, errors = (tensor.diagonal(dim1=1, dim2=2) for tensor in estimated[name])
    assert torch.equal(values, torch.full_like(values, own))
    assert torch.equal(errors, torch.zeros_like(errors))


def test_equal_domains_are_nearly_as_exact(case: Dense, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    features, labels = case.parts[0]
    twice = (case.head, features.repeat(2, 1), labels.repeat(2), (30, 30), case.loss)
    for name, expected in (("hessian_distances", 0.0), ("hessian_cosines", 1.0)):
        found = getattr(diagnostics, name)(*twice)
        assert ((found.value - expected).abs() < 1e-12).all()
        assert (found.error < 1e-12).all()


def test_cosines_of_a_network_are_good_to_some_hundredths(monkeypatch: pytest.MonkeyPatch) -> None:
    """The independent errors of both norms and the product would add to about 0.4."""
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    data = (head, torch.randn(60, 6).double(), torch.arange(60) % 3, (30, 30))
    truth = diagnostics.hessian_cosines(*data).value
    monkeypatch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    found = diagnostics.hessian_cosines(*data)
    assert found.error is not None
    assert 0 < float(found.error[0, 1]) < 0.05
    assert (found.value - truth).abs()[0, 1] < 3 * found.error[0, 1]


class Scale(nn.Module):
    """[N, F] to [N, F], each feature times its own weight: the Hessian of a squared loss is diagonal."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features).double())

    def forward(self, features: Tensor) -> Tensor:
        return self.weight * features


def test_eigenvalues_that_stand_apart_are_not_left_to_chance() -> None:
    """Signs alone would be off by √2 times the square of the largest."""

    def squared(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - labels).square().sum(1) + logits[:, 0] * logits[:, 1]

    features = torch.randn(30, 20).double() * torch.tensor([9.0, 8.0] + [1.0] * 18).double()
    module, labels = Scale(20), torch.randn(30, 20).double()
    hessian = OperatorHessian(module, features, labels, squared)
    whole = torch.diag(2 * features.square().mean(0))
    whole[0, 1] = whole[1, 0] = (features[:, 0] * features[:, 1]).mean()
    truth, norm = whole.square().sum(), inner_products([hessian], [hessian.top(2)])
    assert norm.error is not None
    assert float(norm.error) < 1e-3 * float(truth)
    assert abs(float(norm.value - truth)) < 3 * float(norm.error) + 1e-5 * float(truth)
    assert float(inner_products([hessian], [hessian.top(1)]).error) > 10 * float(norm.error)
