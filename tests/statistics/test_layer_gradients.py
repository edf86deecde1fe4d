"""Formulas of single layers against autograd, one sample after the other; derivatives of these are tested by routes."""

from collections.abc import Callable

import pytest
import torch
from cases import EXACT, FLOAT64
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.statistics import layer_gradients
from fishr.statistics.layer_gradients import (
    convolution_gradients,
    embedding_gradients,
    linear_gradients,
    normalization_gradients,
    shift_gradients,
)

Formula = Callable[[nn.Module, Tensor, Tensor], Tensor]


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4).eval()
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


# Layer, its formula, and the shape of one sample.
LAYERS: dict[str, tuple[Callable[[], nn.Module], Formula, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(3, 2), linear_gradients, (3,)),
    "linear on tokens": (lambda: nn.Linear(3, 2), linear_gradients, (4, 5, 3)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), convolution_gradients, (4, 9)),
    "conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(0, 1)), convolution_gradients, (4, 5, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), convolution_gradients, (4, 5, 6)),
    "pointwise": (lambda: nn.Conv2d(4, 6, 1, stride=2), convolution_gradients, (4, 5, 6)),
    "batch norm": (batch_norm, normalization_gradients, (4, 3, 2)),
    "group norm": (lambda: nn.GroupNorm(2, 4), normalization_gradients, (4, 3, 2)),
    "group norm of vectors": (lambda: nn.GroupNorm(2, 4), normalization_gradients, (4,)),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), normalization_gradients, (4, 3, 2)),
    "layer norm": (lambda: nn.LayerNorm((3, 2)), normalization_gradients, (4, 3, 2)),
    "RMS norm": (lambda: nn.RMSNorm(2), normalization_gradients, (4, 3, 2)),
}


@pytest.mark.parametrize("many", [1, 1000])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_autograd(name: str, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layer_gradients._MANY_PLACES, "cpu", many)
    build, formula, shape = LAYERS[name]
    layer, inputs = build().to(FLOAT64), torch.randn(3, *shape, dtype=FLOAT64)
    deltas = torch.randn_like(layer(inputs))
    by_weight, by_bias = list[Tensor](), list[Tensor]()
    for x, delta in zip(inputs, deltas, strict=True):
        found = torch.autograd.grad(layer(x[None]), list(layer.parameters()), delta[None])
        by_weight.append(found[0])
        by_bias += found[1:]
    assert_close(formula(layer, deltas, inputs), torch.stack(by_weight), **EXACT)
    if by_bias:
        assert_close(shift_gradients(layer, deltas), torch.stack(by_bias), **EXACT)


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "depthwise", "pointwise"])
def test_convolutions_by_groups_have_all_derivatives(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layer_gradients._MANY_PLACES, "cpu", 1)
    build, formula, shape = LAYERS[name]
    layer, inputs = build().to(FLOAT64), torch.randn(2, *shape, dtype=FLOAT64, requires_grad=True)
    deltas = torch.randn_like(layer(inputs)).requires_grad_()
    assert torch.autograd.gradcheck(lambda d, z: formula(layer, d, z), (deltas, inputs))
    assert torch.autograd.gradgradcheck(lambda d, z: formula(layer, d, z), (deltas, inputs))


def test_some_output_channels_have_their_part_of_the_whole() -> None:
    layer, inputs = nn.Conv2d(2, 6, 3), torch.randn(3, 2, 4, 4)
    deltas = torch.randn_like(layer(inputs))
    whole = convolution_gradients(layer, deltas, inputs)
    assert_close(convolution_gradients(layer, deltas[:, 2:5], inputs), whole[:, 2:5])


def test_an_index_that_comes_twice_adds_twice() -> None:
    layer, indices = nn.Embedding(4, 3), torch.tensor([[1, 1, 3]])
    deltas = torch.randn(1, 3, 3)
    (expected,) = torch.autograd.grad(layer(indices), [layer.weight], deltas)
    assert_close(embedding_gradients(layer, deltas, indices)[0], expected)


def test_patches_are_counted() -> None:
    layer, inputs = nn.Conv2d(2, 6, 3, stride=2), torch.randn(3, 2, 5, 7)
    patches = nn.functional.unfold(inputs, 3, stride=2)
    assert layer_gradients.patch_elements(layer, layer(inputs), inputs) == patches[0].numel()
