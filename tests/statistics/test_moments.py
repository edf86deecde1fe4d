"""All routes against the oracle, value and gradients, and which route is taken."""

from collections.abc import Callable

import pytest
import torch
from cases import (
    EXACT,
    FLOAT64,
    HEADS,
    SIZES,
    Featurizer,
    derivatives,
    oracle_gradients,
    oracle_moments,
    slow_but,
    value_of,
)
from loss_cases import LOSSES
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.statistics import gradient_gram, gradient_moments
from fishr.statistics.moments import resolve_route


@pytest.mark.parametrize("sizes", slow_but((1, 5, 2), SIZES))
@pytest.mark.parametrize("loss_name", slow_but("cross-entropy", LOSSES))
@pytest.mark.parametrize("head_name", HEADS)
def test_every_route_is_the_oracle_in_value_and_gradients(
    head_name: str, loss_name: str, sizes: tuple[int, ...]
) -> None:
    case, task = HEADS[head_name], LOSSES[loss_name]
    head, inputs, labels = case.head(task.outputs), case.inputs(sum(sizes)), task.labels(sum(sizes))
    featurizer = nn.Identity() if case.indices else Featurizer(case.shape)
    features = featurizer(inputs)
    expected = oracle_moments(head, features, labels, sizes, task.loss)
    gradients = derivatives(value_of(expected), featurizer, head)
    assert any(g.abs().max() > 1e-3 for g in gradients)
    for route in case.routes:
        for seen, modules in ((features, (featurizer, head)), (features.detach(), (head,))):
            moments = gradient_moments(head, seen, labels, sizes, task.loss, route)
            assert moments.count == sizes
            assert moments.layout == expected.layout
            assert_close(moments.mean, expected.mean, **EXACT)
            assert_close(moments.variance, expected.variance, **EXACT)
            assert_close(moments.second_moment, expected.second_moment, **EXACT)
            found = derivatives(value_of(moments), *modules)
            assert_close(found, gradients[-len(found) :], **EXACT)


UNUSUAL = ("first layer in place", "functions in place", "attention", "0-dim parameter", "moving statistics")
GRAMS = ("linear", "linear without bias", "two layers", "tokens", "conv1d", "recurrent", *UNUSUAL)


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("head_name", GRAMS)
def test_gram_matrix_is_that_of_the_oracles_gradients(head_name: str, loss_name: str) -> None:
    case, task = HEADS[head_name], LOSSES[loss_name]
    head, features, labels = case.head(task.outputs), case.inputs(6), task.labels(6)
    gradients = oracle_gradients(head, features, labels, task.loss)
    found = gradient_gram(head, features, labels, task.loss)
    assert_close(found, gradients @ gradients.T, **EXACT)
    expected = derivatives((gradients @ gradients.T).square().sum(), head)
    assert_close(derivatives(found.square().sum(), head), expected, **EXACT)


def test_a_linear_layer_on_tokens_does_not_take_the_closed_form() -> None:
    """The gradient of a sample is then a sum of outer products."""
    head, tokens, labels = nn.Linear(3, 2).to(FLOAT64), torch.randn(6, 5, 3, dtype=FLOAT64), torch.randint(2, (6,))

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return CrossEntropy()(logits.mean(1), labels)

    expected = oracle_moments(head, tokens, labels, (2, 4), loss)
    for route in ("auto", "backpack", "functional"):
        assert_close(gradient_moments(head, tokens, labels, (2, 4), loss, route).variance, expected.variance, **EXACT)
    gradients = oracle_gradients(head, tokens, labels, loss)
    assert_close(gradient_gram(head, tokens, labels, loss), gradients @ gradients.T, **EXACT)
    with pytest.raises(InputError, match=r"closed_form.*\(6, 5, 3\).*on \[N, F\]"):
        gradient_moments(head, tokens, labels, (2, 4), loss, "closed_form")


def test_a_square_batch_of_tokens_is_not_mistaken_either() -> None:
    """With N = T = F = C every shape fits every other one, and only the number of axes tells."""
    head, tokens, labels = nn.Linear(4, 4).to(FLOAT64), torch.randn(4, 4, 4, dtype=FLOAT64), torch.randint(4, (4,))

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return CrossEntropy()(logits.mean(1), labels)

    expected = oracle_moments(head, tokens, labels, (4,), loss)
    assert_close(gradient_moments(head, tokens, labels, (4,), loss).variance, expected.variance, **EXACT)


def test_which_route_is_taken() -> None:
    features = torch.zeros(2, 3)
    hooked = nn.Linear(3, 2)
    hooked.register_forward_hook(lambda module, inputs, output: 2 * output)
    half = nn.Linear(3, 2)
    half.bias.requires_grad_(False)
    layer = nn.Linear(3, 3)
    in_place, shared, wide = nn.ReLU(inplace=True), nn.Sequential(layer, nn.Tanh(), layer), nn.Linear(3, 2).double()
    for head in (nn.Linear(3, 2), nn.Sequential(nn.Linear(3, 2)), nn.Sequential(layer, nn.ReLU(), nn.Linear(3, 2))):
        assert resolve_route(head, "auto", features) == "closed_form"
    for head in (hooked, half, nn.Sequential(layer, in_place), shared, nn.Sequential(wide)):
        assert resolve_route(head, "auto", features) == "backpack"
        with pytest.raises(InputError, match="closed_form"):
            resolve_route(head, "closed_form", features)
    with pytest.raises(InputError, match="route: got 'magic'"):
        resolve_route(nn.Linear(3, 2), "magic", features)  # type: ignore[arg-type]


def doubling(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return 2 * output


def doubling_in_place(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    output.mul_(2)


def doubling_the_input(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    return 2 * inputs[0]


def test_hooks_that_look_and_hooks_that_change_the_input_are_heeded() -> None:
    head, features, labels = nn.Linear(3, 2).to(FLOAT64), torch.randn(6, 3, dtype=FLOAT64), torch.randint(2, (6,))
    looked = []
    head.register_forward_hook(lambda module, inputs, output: looked.append(output.shape))
    head.register_forward_pre_hook(doubling_the_input)
    expected = oracle_moments(head, features, labels, (3, 3), CrossEntropy())
    for route in ("auto", "backpack", "functional"):
        looked.clear()
        found = gradient_moments(head, features, labels, (3, 3), route=route)
        assert_close(found.variance, expected.variance, **EXACT)
        assert looked


@pytest.mark.parametrize("hook", [doubling, doubling_in_place])
@pytest.mark.parametrize("nested", [True, False])
def test_a_hook_that_changes_a_layers_output_is_heeded(hook: Callable[..., object], nested: bool) -> None:
    """BackPACK's own hooks see the gradient by what the hook returns, not by what the layer computes."""
    layer = nn.Linear(3, 2).to(FLOAT64)
    head = nn.Sequential(layer) if nested else layer
    features, labels = torch.randn(6, 3, dtype=FLOAT64), torch.randint(2, (6,))
    layer.register_forward_hook(hook)
    expected = oracle_moments(head, features, labels, (3, 3), CrossEntropy())
    for route in ("auto", "backpack", "functional"):
        found = gradient_moments(head, features, labels, (3, 3), route=route)
        assert_close(found.variance, expected.variance, **EXACT)


@pytest.mark.parametrize("route", ["closed_form", "backpack", "functional"])
def test_a_loss_that_averages_over_samples_is_refused(route: str) -> None:
    """Its per-sample gradients would be g/N, its second moments 1/N² of what they should be."""
    arguments = (nn.Linear(3, 2), torch.randn(6, 3), torch.randint(2, (6,)), (3, 3))
    with pytest.raises(InputError, match=r"loss: got shape \(\) from CrossEntropyLoss, .*one number a sample"):
        gradient_moments(*arguments, nn.CrossEntropyLoss(), route)
    unreduced = gradient_moments(*arguments, nn.CrossEntropyLoss(reduction="none"), route)
    assert_close(unreduced.variance, gradient_moments(*arguments).variance)


@pytest.mark.parametrize("sizes", [(3, 4), (6, 0), (), (-1, 7)])
@pytest.mark.parametrize("route", ["closed_form", "backpack", "functional"])
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, ...], route: str) -> None:
    with pytest.raises(InputError, match="sizes: got"):
        gradient_moments(nn.Linear(3, 2), torch.randn(6, 3), torch.zeros(6).long(), sizes, route=route)


def test_a_head_without_trainable_parameters_is_refused() -> None:
    head = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(InputError, match="Linear has no parameter that requires grad"):
        gradient_moments(head, torch.randn(6, 3), torch.zeros(6).long(), (3, 3))


@pytest.mark.parametrize("route", ["closed_form", "backpack", "functional"])
def test_sums_in_float64_keep_the_digits_that_one_pass_in_float32_loses(route: str) -> None:
    """abs(mean)/std ≈ 100 in the gradients of the weight: a second moment has 4 digits more than the variance."""
    features = 100 + torch.randn(64, 1)
    head, labels = nn.Linear(1, 1), torch.zeros(64, 1)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return (logits - labels).sum(1)  # δ = 1, so that g = z

    exact = features.to(FLOAT64).var(0, unbiased=False)
    arguments = (head, features, labels, (64,), loss, route)
    plain, wide = gradient_moments(*arguments), gradient_moments(*arguments, accumulate=FLOAT64)
    assert (plain.variance.dtype, wide.variance.dtype) == (torch.float32, FLOAT64)
    error = (wide.variance[0, 0] - exact).abs() / exact
    assert error < 1e-10
    if route != "functional":  # which takes two passes
        assert (plain.variance[0, 0] - exact).abs() / exact > 1e-5


@pytest.mark.parametrize("route", ["closed_form", "backpack"])
def test_a_float32_variance_is_not_clamped(route: str) -> None:
    """Equal samples have variance 0; rounding makes it negative somewhere, and it is shown as it came out."""
    features = (1000 * torch.rand(1, 64)).expand(7, 64).contiguous()
    moments = gradient_moments(nn.Linear(64, 3), features, torch.zeros(7).long(), (7,), route=route)
    assert moments.variance.min() < 0


@pytest.mark.parametrize("head_name", ["linear", "two layers", "conv1d"])
def test_statistics_without_gradients_have_no_graph_and_the_same_numbers(head_name: str) -> None:
    case = HEADS[head_name]
    head, features, labels = case.head(3), case.inputs(6).requires_grad_(), torch.randint(3, (6,))
    for route in case.routes:
        with torch.no_grad():
            quiet = gradient_moments(head, features, labels, (2, 4), route=route)
        loud = gradient_moments(head, features, labels, (2, 4), route=route)
        assert not quiet.mean.requires_grad
        assert not quiet.variance.requires_grad
        assert loud.variance.requires_grad
        assert_close(quiet.variance, loud.variance, **EXACT)
