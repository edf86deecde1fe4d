"""Moments of chosen layers up to whole networks: exact against the oracle, bounded in memory, refused with a reason."""

from collections import OrderedDict

import pytest
import torch
from cases import EXACT, FLOAT64, Featurizer, derivatives, oracle_gradients, oracle_moments, value_of
from memory import peak_of_live_tensors
from torch import Tensor, nn
from torch.testing import assert_close
from torchvision.models.resnet import BasicBlock

from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.models.featurizers import MNISTCNN
from fishr.models.frozen import freeze_norm
from fishr.models.resnet import ResNet
from fishr.statistics import (
    backpack_moments,
    distance_to_mean,
    functional_moments,
    gradient_gram,
    gradient_moments,
    layer_gradients,
    outer_moments,
    per_sample_gradients,
)
from fishr.types import Layout

ROUTES = ("backpack", "functional")


def network(featurizer: nn.Module, features: int, classes: int = 3) -> nn.Module:
    return nn.Sequential(OrderedDict(featurizer=featurizer, head=nn.Linear(features, classes))).to(FLOAT64)


def residual() -> nn.Module:
    """Residual blocks with operations in place and frozen batch norm, small enough for many tests."""
    down = nn.Sequential(nn.Conv2d(2, 4, 1, stride=2, bias=False), nn.BatchNorm2d(4))
    blocks = nn.Sequential(BasicBlock(2, 2), BasicBlock(2, 4, 2, down), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for name, tensor in (*blocks.named_parameters(), *blocks.named_buffers()):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0) if name.endswith("running_var") else nn.init.normal_(tensor)
    return network(freeze_norm(blocks), 4).train()


def images(samples: int, channels: int = 2, side: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(samples, channels, side, side, dtype=FLOAT64), torch.randint(3, (samples,))


# What is chosen, and what that is.
CHOICES = {
    "all": (None, ""),
    "last block and head": (("featurizer.1", "head"), ("featurizer.1.", "head.")),
    "one parameter": (("featurizer.0.conv2.weight",), "featurizer.0.conv2.weight"),
    "a parameter, its layer, and itself again": (
        ("featurizer.1.bn1", "featurizer.1.bn1.bias", "featurizer.1.bn1"),
        "featurizer.1.bn1.",
    ),
    "head": (("head",), "head."),
}


@pytest.mark.parametrize("sizes", [(3, 2), (1, 3, 1)], ids=str)
@pytest.mark.parametrize("choice", CHOICES)
def test_chosen_layers_are_the_oracle_in_value_and_gradients_by_the_whole_network(
    choice: str, sizes: tuple[int, ...]
) -> None:
    layers, prefix = CHOICES[choice]
    net, featurizer, (inputs, labels) = residual(), Featurizer((2, 6, 6)), images(sum(sizes))
    names = tuple(name for name, _ in net.named_parameters() if name.startswith(prefix))
    expected = oracle_moments(net, featurizer(inputs), labels, sizes, CrossEntropy(), names)
    gradients = derivatives(value_of(expected), featurizer, net)
    assert all(g.abs().max() > 1e-6 for g in gradients)  # layers below and above the chosen ones take part
    for route in ROUTES:
        moments = gradient_moments(net, featurizer(inputs), labels, sizes, route=route, layers=layers)
        assert moments.layout == expected.layout
        assert_close(moments.mean, expected.mean, **EXACT)
        assert_close(moments.variance, expected.variance, **EXACT)
        assert_close(derivatives(value_of(moments), featurizer, net), gradients, **EXACT)


def test_images_without_a_graph_serve() -> None:
    net, (inputs, labels) = residual(), images(5)
    expected = derivatives(value_of(oracle_moments(net, inputs, labels, (2, 3), CrossEntropy())), net)
    for route in ROUTES:
        found = gradient_moments(net, inputs, labels, (2, 3), route=route)
        assert_close(derivatives(value_of(found), net), expected, **EXACT)
        with torch.no_grad():
            quiet = gradient_moments(net, inputs, labels, (2, 3), route=route)
        assert not quiet.variance.requires_grad
        assert_close(quiet.variance, found.variance, **EXACT)


def test_frozen_parts_are_left_out_and_in_the_graph() -> None:
    net, (inputs, labels) = residual(), images(5)
    net.featurizer[0].requires_grad_(False)
    net.head.weight.requires_grad_(False)
    expected = oracle_moments(net, inputs, labels, (2, 3), CrossEntropy())
    assert expected.layout.names[0].startswith("featurizer.1")
    for layers in (None, ("featurizer", "head")):
        for route in ROUTES:
            found = gradient_moments(net, inputs, labels, (2, 3), route=route, layers=layers)
            assert found.layout == expected.layout
            assert_close(found.variance, expected.variance, **EXACT)
            assert_close(derivatives(value_of(found), net), derivatives(value_of(expected), net), **EXACT)
    with pytest.raises(InputError, match=r"layers: got 'head.weight', which no trainable parameter"):
        gradient_moments(net, inputs, labels, (2, 3), layers=("head.weight",))


def transformer() -> nn.Module:
    return nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)


def vision_transformer() -> nn.Module:
    return pytest.importorskip("timm").create_model(
        "vit_tiny_patch16_224", img_size=4, patch_size=2, embed_dim=4, depth=2, num_heads=2, num_classes=0
    )


# Featurizer, what it reads, its features, and layers that BackPACK has formulas for.
ATTENTION = {
    "torch's layer": (lambda: nn.Sequential(transformer(), nn.Flatten()), (3, 4), 12, ("featurizer.0.linear1", "head")),
    "timm's block": (vision_transformer, (3, 4, 4), 4, ("featurizer.blocks.0.attn", "featurizer.blocks.1.mlp", "head")),
}


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ATTENTION)
def test_layers_around_fused_attention_are_the_oracle_with_and_without_a_graph(name: str, whole: bool) -> None:
    build, shape, features, layers = ATTENTION[name]
    net, inputs, labels = (
        network(build().eval(), features),
        torch.randn(5, *shape, dtype=FLOAT64),
        torch.randint(3, (5,)),
    )
    chosen = ("featurizer", "head") if whole else layers
    names = Layout.of(net, chosen).names
    expected = oracle_moments(net, inputs, labels, (2, 3), CrossEntropy(), names)
    gradients = derivatives(value_of(expected), net)
    for route in ("auto", "functional") if whole else ROUTES:
        found = gradient_moments(net, inputs, labels, (2, 3), route=route, layers=chosen)
        assert_close(derivatives(value_of(found), net), gradients, **EXACT)
        with torch.no_grad():
            quiet = gradient_moments(net, inputs, labels, (2, 3), route=route, layers=chosen)
        assert_close(quiet.variance, expected.variance.detach(), **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize("few", [0, 8, 100])
@pytest.mark.parametrize("elements", [1, 30, 1000])
def test_neither_chunk_boundaries_nor_ways_to_the_gradients_change_anything(
    elements: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, (inputs, labels), sizes = residual(), images(8), (2, 2, 1, 3)
    expected = oracle_moments(net, inputs, labels, sizes, CrossEntropy())
    gradients = derivatives(value_of(expected), net)
    monkeypatch.setitem(backpack_moments._CHUNK, "cpu", elements)
    monkeypatch.setattr(backpack_moments, "_CHANNELS", 3)
    monkeypatch.setattr(backpack_moments, "FEW_PLACES", few)
    monkeypatch.setitem(layer_gradients._MANY_PLACES, "cpu", 20)
    monkeypatch.setitem(outer_moments._ELEMENTS, "cpu", elements)
    monkeypatch.setattr(functional_moments, "_CHUNK", elements)
    for route in ROUTES:
        found = gradient_moments(net, inputs, labels, sizes, route=route)
        assert_close(found.variance, expected.variance, **EXACT)
        assert_close(derivatives(value_of(found), net), gradients, **EXACT)


@pytest.mark.parametrize(("route", "few"), [("backpack", 0), ("backpack", 8), ("functional", 8)])
def test_second_derivatives_go_through(route: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of the penalty's squared gradient, through chunks."""
    monkeypatch.setattr(functional_moments, "_CHUNK", 500)
    monkeypatch.setattr(backpack_moments, "FEW_PLACES", few)
    monkeypatch.setitem(layer_gradients._MANY_PLACES, "cpu", 1)
    cnn = nn.Sequential(nn.Conv2d(2, 4, 2), nn.Tanh(), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net, (inputs, labels) = network(cnn, 4), images(4, side=3)

    def of(value: Tensor) -> list[Tensor]:
        first = torch.autograd.grad(value, list(net.parameters()), create_graph=True)
        return derivatives(sum(g.square().sum() for g in first), net)

    expected = of(value_of(oracle_moments(net, inputs, labels, (1, 3), CrossEntropy())))
    assert max(g.abs().max() for g in expected) > 1e-3
    found = gradient_moments(net, inputs, labels, (1, 3), route=route)
    assert_close(of(value_of(found)), expected, atol=1e-8, rtol=1e-8)


@pytest.mark.slow
def test_the_whole_cnn_is_the_oracle() -> None:
    net = network(MNISTCNN()((2, 8, 8), torch.Generator().manual_seed(0)), 128)
    (inputs, labels), sizes = images(4, side=8), (1, 3)
    expected = oracle_moments(net, inputs, labels, sizes, CrossEntropy())
    found = gradient_moments(net, inputs, labels, sizes)
    assert found.layout.size == sum(p.numel() for p in net.parameters())
    assert_close(found.mean, expected.mean, **EXACT)
    assert_close(found.variance, expected.variance, **EXACT)
    gradients = derivatives(value_of(expected), net)
    assert all(g.abs().max() > 1e-6 for g in gradients)
    assert_close(derivatives(value_of(found), net), gradients, **EXACT)


@pytest.mark.slow
def test_the_whole_resnet_is_the_oracle() -> None:
    """And its last block, whose part of the oracle's statistic is compared."""
    net = network(ResNet(18, "random")((3, 32, 32), torch.Generator().manual_seed(0)), 512).train()
    (inputs, labels), sizes = images(3, 3, 32), (1, 2)
    expected = oracle_moments(net, inputs, labels, sizes, CrossEntropy())
    found = gradient_moments(net, inputs, labels, sizes)
    assert_close(found.mean, expected.mean, **EXACT)
    assert_close(found.variance, expected.variance, **EXACT)
    gradients = derivatives(expected.variance.sum(), net)
    assert all(g.abs().max() > 1e-6 for g in gradients)
    assert_close(derivatives(found.variance.sum(), net), gradients, **EXACT)
    last = gradient_moments(net, inputs, labels, sizes, layers=("featurizer.layer4", "head"))
    columns, mine = expected.layout.split(expected.variance), last.layout.split(last.variance)
    assert mine.keys() == {name for name in columns if name.startswith(("featurizer.layer4.", "head."))}
    assert_close(mine, {name: columns[name] for name in mine}, **EXACT)


def test_gradients_and_gram_matrix_of_chosen_layers() -> None:
    net, (inputs, labels) = residual(), images(5)
    names = Layout.of(net, ("featurizer.1.conv1", "head")).names
    expected = oracle_gradients(net, inputs, labels, CrossEntropy(), names)
    found = per_sample_gradients(net, inputs, labels, CrossEntropy(), ("featurizer.1.conv1", "head"))
    assert_close(found, expected, **EXACT)
    gram = gradient_gram(net, inputs, labels, layers=("featurizer.1.conv1", "head"))
    assert_close(gram, expected @ expected.T, **EXACT)
    value = expected @ expected.T
    assert_close(derivatives(gram.square().sum(), net), derivatives(value.square().sum(), net), **EXACT)


def test_part_of_a_linear_head_takes_another_route_than_the_closed_form() -> None:
    head, features, labels = nn.Linear(3, 2), torch.randn(5, 3), torch.randint(2, (5,))
    whole = gradient_moments(head, features, labels, (2, 3))
    part = gradient_moments(head, features, labels, (2, 3), layers=("bias",))
    assert_close(part.variance, whole.variance[:, 6:])
    every = gradient_moments(head, features, labels, (2, 3), route="closed_form", layers=("weight", "bias"))
    assert_close(every.variance, whole.variance)
    with pytest.raises(InputError, match=r'"closed_form" .* for all of a trainable nn.Linear'):
        gradient_moments(head, features, labels, (2, 3), route="closed_form", layers=("bias",))
    gradients = oracle_gradients(head, features, labels, CrossEntropy(), ("bias",))
    assert_close(gradient_gram(head, features, labels, layers=("bias",)), gradients @ gradients.T)


@pytest.mark.parametrize("route", ["auto", *ROUTES])
def test_batch_statistics_in_a_network_are_refused_by_name(route: str) -> None:
    net = network(nn.Sequential(BasicBlock(2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()), 2).train()
    with pytest.raises(InputError, match=r"'featurizer\.0\.bn1' of .*BatchNorm2d.*batch statistics.*eval mode"):
        gradient_moments(net, *images(5), (2, 3), route=route)


def test_autocast_does_not_reach_a_whole_network() -> None:
    net, (inputs, labels) = residual().float(), images(5)
    plain = gradient_moments(net, inputs.float(), labels, (2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        found = gradient_moments(net, inputs.float(), labels, (2, 3))
        from_bf16 = gradient_moments(net, inputs.bfloat16(), labels, (2, 3))
    assert_close(found.variance, plain.variance)
    assert from_bf16.variance.dtype is torch.float32
    value, expected = (distance_to_mean(moments.variance) for moments in (found, plain))
    assert_close(derivatives(value, net), derivatives(expected, net))


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("backward", [False, True])
def test_memory_grows_with_the_activations_not_with_samples_times_parameters(
    route: str, backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ResNet's last block on tiny images: 8 layers with up to 9,216 parameters each, and 32 places × 4 numbers."""
    monkeypatch.setitem(backpack_moments._CHUNK, "cpu", 1 << 13)
    monkeypatch.setattr(backpack_moments, "FEW_PLACES", 0)
    monkeypatch.setattr(functional_moments, "_CHUNK", 1 << 13)
    blocks = nn.Sequential(nn.Conv2d(2, 32, 1), BasicBlock(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net = network(freeze_norm(blocks), 32).float()
    parameters = sum(p.numel() for p in net.parameters())

    def step(samples: int) -> None:
        inputs, labels = torch.randn(samples, 2, 1, 1), torch.zeros(samples).long()
        with torch.set_grad_enabled(backward):
            moments = gradient_moments(net, inputs, labels, (samples // 2,) * 2, route=route)
        if backward:
            torch.autograd.grad(distance_to_mean(moments.variance), list(net.parameters()))

    growth = (peak_of_live_tensors(step, 36) - peak_of_live_tensors(step, 12)) / 24
    assert growth < parameters / 4


def test_the_measure_of_memory_sees_gradients_that_are_kept() -> None:
    """What the test above would see if the gradients of all samples were held."""
    net = network(nn.Sequential(nn.Conv2d(2, 32, 1), nn.Flatten()), 32).float()
    parameters = sum(p.numel() for p in net.parameters())

    def step(samples: int) -> None:
        inputs, labels = torch.randn(samples, 2, 1, 1), torch.zeros(samples).long()
        per_sample_gradients(net, inputs, labels, CrossEntropy()).square().sum().backward()

    assert (peak_of_live_tensors(step, 36) - peak_of_live_tensors(step, 12)) / 24 > parameters
