"""All quantities in one go."""

import pytest
import torch
from cases import EXACT, FLOAT64, HEADS, oracle_moments
from diagnostics.dense import Dense, dense
from torch import nn

import fishr.diagnostics
from fishr.diagnostics import NAMES, Estimation, measure, measure_network
from fishr.diagnostics.expectation import expected_seconds
from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.errors import InputError
from fishr.losses import BinaryCrossEntropy, CrossEntropy

TAKES = {
    "top_eigenvalues": {"rank": 2},
    "eigenspace_overlaps": {"rank": 2},
    "takeuchi": {"ridge": 0.01},
    "takeuchi_diagonal": {"ridge": 0.01},
    "sharpness_worst": {"rho": 0.2},
    "sharpness_average": {"rho": 0.2},
    "sharpness_quadratic": {"rho": 0.2},
    "transfer": {"eta": 0.3},
    "transfer_second_order": {"eta": 0.3},
    "inconsistency_second_order": {"epsilon": 0.05, "ridge": 0.01},
    "inconsistency_second_order_pairs": {"epsilon": 0.05, "ridge": 0.01},
    "inconsistency_diagonal_proxy": {"epsilon": 0.05, "ridge": 0.01},
}
OPTIONS = {"rank": 2, "ridge": 0.01, "rho": 0.2, "eta": 0.3, "epsilon": 0.05}


@pytest.mark.slow
def test_each_is_its_own_function_with_the_same_options(case: Dense) -> None:
    found = measure(*case.arguments, **OPTIONS)
    assert tuple(found) == NAMES
    shared = case.curvature
    for name, quantity in found.items():
        alone = getattr(fishr.diagnostics, name).of(shared, **TAKES.get(name, {}))
        assert quantity.name == alone.name == name
        assert torch.allclose(quantity.value, alone.value, rtol=1e-9, atol=1e-12, equal_nan=True), name
        assert len(quantity.axes) == quantity.value.ndim
        assert quantity.unit
        assert quantity.route
        assert not quantity.value.requires_grad
        if quantity.error is not None:
            torch.broadcast_shapes(quantity.error.shape, quantity.value.shape)


@pytest.mark.parametrize("names", [("linear", "cross-entropy", (4, 4)), ("two layers", "binary", (4, 4))])
def test_each_is_called_with_the_head_as_with_a_view(names: tuple[str, str, tuple[int, ...]]) -> None:
    case = dense(*names)
    shared = case.curvature
    for name in NAMES:
        function, options = getattr(fishr.diagnostics, name), TAKES.get(name, {})
        alone, of_view = function(*case.arguments, **options), function.of(shared, **options)
        assert torch.allclose(alone.value, of_view.value, rtol=1e-9, atol=1e-12, equal_nan=True), name


@pytest.mark.parametrize("head", ["first layer in place", "functions in place", "spectral norm", "moving statistics"])
def test_measuring_changes_nothing_and_no_quantity_depends_on_another(head: str) -> None:
    case, labels = HEADS[head], torch.randint(3, (7,))
    module, features = case.head(3), case.inputs(7)
    before, kept = features.clone(), {name: value.clone() for name, value in module.state_dict().items()}
    found = measure(module, features, labels, (4, 3))
    assert torch.equal(features, before)
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    for name in ("gradient_variance", "hessian_diagonal", "fisher_diagonal", "risk"):
        alone = measure(module, features, labels, (4, 3), names=[name])[name].value
        assert torch.equal(alone, found[name].value)


@pytest.mark.parametrize("route", ["auto", "functional"])
def test_the_route_that_an_error_names_is_one_that_measuring_takes(route: str) -> None:
    case = HEADS["0-dim parameter"]
    arguments = case.head(3), case.inputs(7), torch.randint(3, (7,)), (4, 3)
    expected = oracle_moments(*arguments, CrossEntropy()).variance
    found = measure(*arguments, names=["gradient_variance"], route=route)["gradient_variance"].value
    torch.testing.assert_close(found, expected.detach(), **EXACT)
    with pytest.raises(InputError, match=r"'scale' of .*Scaled: .*; use route=\"functional\""):
        measure(*arguments, names=["gradient_variance"], route="backpack")


def test_measuring_in_inference_mode() -> None:
    """Features, labels and the call itself, as in a loop that only evaluates."""
    case = HEADS["two layers"]
    head, features, labels = case.head(3), case.inputs(7), torch.randint(3, (7,))
    expected = measure(head, features, labels, (4, 3))
    with torch.inference_mode():
        inside = measure(head, features * 1, labels * 1, (4, 3))
        alone = fishr.diagnostics.hessian_trace(head, features, labels, (4, 3))
        made = features * 1, labels * 1
    outside = measure(head, *made, (4, 3))
    for name, quantity in expected.items():
        for other in (inside, outside):
            torch.testing.assert_close(other[name].value, quantity.value, equal_nan=True)
    assert torch.equal(alone.value, expected["hessian_trace"].value)


def test_some_of_them_and_no_others() -> None:
    case = dense("linear", "cross-entropy", (4, 4))
    assert list(measure(*case.arguments, names=("takeuchi", "risk"))) == ["risk", "takeuchi"]
    with pytest.raises(InputError, match="names: got sharpnes, expected some of risk, accuracy"):
        measure(*case.arguments, names=("risk", "sharpnes"))


def test_the_seed_reaches_what_is_drawn() -> None:
    case = dense("linear", "cross-entropy", (4, 4))
    values = [measure(*case.arguments, names=["sharpness_average"], seed=seed) for seed in (0, 0, 1)]
    first, same, other = (found["sharpness_average"].value for found in values)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_a_wide_head_is_measured_without_any_matrix_of_its_parameters() -> None:
    """70,000 parameters: a matrix would take 36 GiB."""
    head = nn.Linear(7000, 10).to(FLOAT64)
    features, labels = torch.randn(30, 7000, dtype=FLOAT64) / 80, torch.randint(10, (30,))
    found = measure(head, features, labels, (10, 20))
    assert all(quantity.value.isfinite().all() for quantity in found.values())
    assert found["hessian_trace"].error is None


def test_float32_heads_and_features_of_another_type_serve() -> None:
    head, labels = nn.Linear(6, 3), torch.randint(3, (20,))
    found = measure(head, torch.randn(20, 6).half(), labels, (8, 12))
    assert all(quantity.value.dtype is torch.float32 for quantity in found.values())


class Residual(nn.Module):
    """No chain of layers: BackPACK cannot follow it."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(inputs))
        return self.last(hidden + torch.tanh(self.second(hidden)))


@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy()])
def test_estimates_and_exact_matrices_agree_within_the_stated_errors(
    loss: CrossEntropy, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = 3 if isinstance(loss, CrossEntropy) else 2
    network = Residual(outputs).to(FLOAT64)
    labels = torch.randint(3, (50,)) if outputs == 3 else torch.randint(2, (50, 2))
    case = Dense(network, torch.randn(50, 4, dtype=FLOAT64), labels, (30, 20), loss)
    exact = measure_network(*case.arguments, rank=3, ridge=0.05)
    assert all(exact[name].error is None for name in ("hessian_diagonal", "hessian_trace", "effective_rank"))
    case.grow(monkeypatch)
    found = measure_network(*case.arguments, rank=3, ridge=0.05, estimation=Estimation(16, 4, chunk=40))
    for name in ("hessian_trace", "effective_rank", "top_eigenvalues"):
        assert ((found[name].value - exact[name].value).abs() <= 6 * found[name].error + 1e-9).all(), name
    diagonal = found["hessian_diagonal"]
    assert (diagonal.value - case.diagonals).norm() <= 2 * diagonal.error.norm()
    assert found["takeuchi"].error is not None
    assert found["spectral_density"].error is not None
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.slow
def test_an_estimate_is_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    network = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3)).to(FLOAT64)
    data = (network, torch.randn(20, 6, dtype=FLOAT64), torch.randint(3, (20,)), (8, 12))
    spend = Estimation(products=6, repeats=2)
    first, second = (measure_network(*data, rank=2, ridge=0.1, estimation=spend) for _ in range(2))
    for name, quantity in first.items():
        assert torch.equal(quantity.value, second[name].value), name
        # Linear layers have the Takeuchi criterion in closed form.
        assert name == "takeuchi" or quantity.error is not None, name


def test_progress_names_each_quantity_and_each_pass_of_a_large_head(monkeypatch: pytest.MonkeyPatch) -> None:
    case, calls, names = dense("two layers", "cross-entropy", (4, 4)), list[str](), ("risk", "top_eigenvalues")
    measure(*case.arguments, names=names, progress=calls.append)
    assert calls == ["risk", "top_eigenvalues"]
    monkeypatch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    measure(*case.arguments, names=names, progress=calls.append)
    assert calls[2] == "risk"
    assert calls[3:] == ["top_eigenvalues"] * (len(calls) - 3)
    assert len(calls) > 10


def test_each_hessian_meets_each_sign_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the eigenvectors of all domains, which are known by then."""
    case = dense("two layers", "cross-entropy", (1, 5, 2))
    case.grow(monkeypatch)
    columns, apply = list[int](), OperatorHessian.apply

    def counted(hessian: OperatorHessian, vectors: torch.Tensor) -> torch.Tensor:
        columns.append(vectors.shape[1])
        return apply(hessian, vectors)

    monkeypatch.setattr(OperatorHessian, "apply", counted)
    names = ("hessian_distances", "hessian_cosines", "effective_rank")
    measure(*case.arguments, names=("top_eigenvalues",))
    alone = sum(columns)
    measure(*case.arguments, names=("top_eigenvalues", *names))
    domains = len(case.sizes)
    assert sum(columns) - 2 * alone == domains * (Estimation().products + 5 * domains)


def test_time_is_expected_of_large_heads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dense("two layers", "cross-entropy", (4, 4))
    assert expected_seconds("head", *case.arguments, rank=5) == 0
    monkeypatch.setattr("fishr.diagnostics.expectation.WHOLE_LIMIT", 10)
    assert expected_seconds("head", *case.arguments, rank=5) > 0
