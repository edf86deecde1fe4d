"""A network cut at a layer: both parts together are the whole, to the bit; what cannot be cut is refused."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from cases import slow_but
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.models import MLP, MNISTCNN, ResNet, TimmBackbone, WideResNet
from fishr.models.layer_split import SplitFeaturizer, split_at

CASES = {
    "MLP": (MLP((5, 4)), "2", (2, 3, 3)),
    "CNN": (MNISTCNN(), "5", (2, 28, 28)),
    "ResNet": (ResNet(18, "random"), "layer2", (3, 32, 32)),
    "wide ResNet": (WideResNet(), "featurizer.1", (3, 16, 16)),
    "timm's ResNet": (TimmBackbone("test_resnet", pretrained=False), "layer2", (3, 32, 32)),
    "timm's EfficientNet": (TimmBackbone("test_efficientnet", pretrained=False), "featurizer.blocks.1", (3, 32, 32)),
    "a block of a stage": (TimmBackbone("test_efficientnet", pretrained=False), "blocks.1.0", (3, 32, 32)),
    "a transformer": (TimmBackbone("vit_tiny_patch16_224", pretrained=False), "blocks.10", (3, 224, 224)),
}


@pytest.mark.parametrize("name", slow_but("MLP", CASES))
def test_both_parts_together_are_the_whole_to_the_bit(name: str) -> None:
    featurizer, at, shape = CASES[name]
    network = featurizer(shape, torch.Generator().manual_seed(0))
    modes = [module.training for module in network.modules()]
    below, above, outputs = split_at(network, at, torch.randn(2, *shape))
    assert [module.training for module in network.modules()] == modes
    # Each parameter is in one part, under its name in the network, and is the network's own.
    own, parts = dict(network.named_parameters()), [dict(part.named_parameters()) for part in (below, above)]
    assert not parts[0].keys() & parts[1].keys()
    assert all(parts)
    assert {n: id(p) for part in parts for n, p in part.items()} == {n: id(p) for n, p in own.items()}
    inputs = torch.randn(3, *shape)
    for mode in (True, False):
        network.train(mode)
        for part in (below, above):
            part.train(mode)
        torch.manual_seed(0)
        expected = network(inputs.clone())
        torch.manual_seed(0)
        assert torch.equal(above(below(inputs.clone())), expected)
    assert outputs.shape[1:] == below(inputs).shape[1:]


class Around(nn.Module):
    """A network whose own forward pass is given."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.a, self.b, self.pair = nn.Linear(3, 3), nn.Linear(3, 3), Pair()
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


REFUSED = {
    "inside a residual block": ("a", lambda m, x: m.b(m.a(x)) + x, "add above it also reads x below it"),
    "a layer that nothing reads": ("a", lambda m, x: (m.a(x), m.b(x))[1], "the features do not depend on it"),
    "a layer that is never called": ("a", lambda m, x: m.b(x), "it is called 0 times"),
    "a layer that is called twice": ("a", lambda m, x: m.b(m.a(m.a(x))), "it is called 2 times"),
    "a choice by value": ("a", lambda m, x: m.b(m.a(x) if x.sum() > 0 else x), "cannot be traced"),
    "dropout in a forward pass": (
        "a",
        lambda m, x: m.b(nn.functional.dropout(m.a(x), 0.5, m.training)),
        "compute something else while training",
    ),
    "several outputs": ("pair", lambda m, x: m.b(m.a(m.pair(x)[0])), "its output is tuple"),
    "rows of other samples": ("a", lambda m, x: m.b(m.a(x.flatten(0, 1).unflatten(0, (-1, 1)).expand(-1, 3))), "6 out"),
    "no such layer": ("c", lambda m, x: m.b(m.a(x)), "'c', which is no layer of the network; expected a name such as"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_cut_is_refused(name: str) -> None:
    at, forward, message = REFUSED[name]
    network = Around(forward)
    network.b.eval()
    with pytest.raises(InputError, match=message):
        split_at(network, at, torch.randn(2, 3))
    assert (network.a.training, network.b.training) == (True, False)


def test_a_layer_whose_forward_pass_differs_from_the_traced_one_is_refused() -> None:
    """The trace notes the value of the first call; the probe shows that it was not constant."""
    calls = iter(range(100))
    with pytest.raises(InputError, match="do not give the network's features"):
        split_at(Around(lambda m, x: m.b(m.a(x)) * (next(calls) // 2)), "a", torch.randn(2, 3))


def test_the_end_of_a_name_must_be_of_one_layer() -> None:
    network = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    split_at(network, "0.1", torch.randn(2, 3))
    wrapped = nn.Sequential(nn.Flatten(), network)
    split_at(wrapped, "featurizer.0.1", torch.randn(2, 3))
    several = nn.Sequential(nn.Sequential(network), nn.Sequential(deepcopy(network)))
    with pytest.raises(
        InputError, match=r"'1\.1', which 2 layers are called; expected a name such as 0\.0\.1\.1, 1\.0\.1\.1"
    ):
        split_at(several, "1.1", torch.randn(2, 3))


def test_below_normalization_is_frozen_and_above_it_learns() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    below, above, _ = split_at(network, "1", torch.randn(2, 3))
    module = SplitFeaturizer(above, below).train()
    module(torch.randn(8, 3)).sum().backward()
    named = dict(module.named_buffers())
    assert not named["below.inner.1.running_mean"].any()
    assert named["above.3.running_mean"].any()
    trained = {name for name, p in module.named_parameters() if p.grad is not None}
    assert trained == {f"above.{layer}.{part}" for layer in (2, 3) for part in ("weight", "bias")}
    assert {name for name, p in module.named_parameters() if p.requires_grad} == trained
