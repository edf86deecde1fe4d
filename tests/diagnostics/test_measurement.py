"""All quantities in one go."""

import pytest
import torch
from cases import EXACT, FLOAT64, HEADS, oracle_moments
from diagnostics.dense import Dense, dense
from torch import nn

import fishr.diagnostics
from fishr.diagnostics import NAMES, measure
from fishr.errors import InputError
from fishr.losses import CrossEntropy

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


def test_each_is_its_own_function_with_the_same_options(case: Dense) -> None:
    found = measure(*case.arguments, **OPTIONS)
    assert tuple(found) == NAMES
    for name, quantity in found.items():
        alone = getattr(fishr.diagnostics, name)(*case.arguments, **TAKES.get(name, {}))
        assert quantity.name == alone.name == name
        assert torch.allclose(quantity.value, alone.value, rtol=1e-9, atol=1e-12, equal_nan=True), name
        assert len(quantity.axes) == quantity.value.ndim
        assert quantity.unit
        assert quantity.route
        assert not quantity.value.requires_grad
        if quantity.error is not None:
            torch.broadcast_shapes(quantity.error.shape, quantity.value.shape)


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
