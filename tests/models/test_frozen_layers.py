"""Layers that do not train, by name, of every network that is a featurizer."""

import attrs
import pytest
import torch
from torch import nn

from fishr.configuration import structure, unstructure
from fishr.errors import InputError
from fishr.models import MNISTCNN, Featurizer, ResNet, TimmBackbone, WideResNet, freeze_layers

SHAPE = (3, 32, 32)
INPUTS = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
FEATURIZERS = {
    "mnist cnn": (MNISTCNN, {}, ("0", "2")),
    "resnet": (ResNet, {"depth": 18, "weights": "random", "freeze_norm": False}, ("conv1", "bn1", "layer1")),
    "wide resnet": (WideResNet, {"depth": 10, "width": 1}, ("0", "1.norm2")),
    "timm": (TimmBackbone, {"name": "test_resnet", "pretrained": False}, ("conv1.0", "bn1", "layer1")),
    "timm's transformer": (TimmBackbone, {"name": "test_vit", "pretrained": False}, ("cls_token", "blocks.0")),
}


def below(name: str, layers: tuple[str, ...]) -> bool:
    """Whether a name has a layer's parts as its first parts."""
    return any(name.split(".")[: len(layer.split("."))] == layer.split(".") for layer in layers)


@pytest.fixture(params=FEATURIZERS)
def featurizer(request) -> Featurizer:
    cls, settings, layers = FEATURIZERS[request.param]
    return cls(**settings, frozen=layers)


def build(featurizer: Featurizer) -> nn.Module:
    return featurizer(SHAPE, torch.Generator().manual_seed(0))


def names_of(module: nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors by their names below the network, which timm's featurizer holds as its first part."""
    first = "0." if hasattr(module[0] if isinstance(module, nn.Sequential) else module, "pretrained_cfg") else ""
    return {name.removeprefix(first): tensor for name, tensor in tensors.items()}


def test_parameters_and_statistics_below_the_names_stay_and_all_others_train(featurizer):
    module = build(featurizer).train()
    before = {name: tensor.clone() for name, tensor in names_of(module, module.state_dict()).items()}
    parameters = names_of(module, dict(module.named_parameters()))
    frozen = {name for name in before if below(name, featurizer.frozen)}
    assert {name for name, one in parameters.items() if not one.requires_grad} == frozen & parameters.keys() != set()
    module(INPUTS).square().sum().backward()
    torch.optim.SGD([one for one in module.parameters() if one.requires_grad], lr=0.1).step()
    after = names_of(module, module.state_dict())
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert not moved & frozen
    # In the first step of some networks the gradient of a residual branch is zero.
    assert after.keys() - parameters.keys() - frozen <= moved
    assert moved & parameters.keys()


def test_first_weights_and_names_are_those_of_the_network_without_frozen_layers(featurizer):
    free = build(attrs.evolve(featurizer, frozen=None)).state_dict()
    module = build(featurizer).state_dict()
    assert list(module) == list(free)
    assert all(torch.equal(module[name], free[name]) for name in free)


def test_it_reads_back_from_a_table_and_the_default_is_left_out(featurizer):
    assert structure(unstructure(featurizer), type(featurizer)) == featurizer
    assert not {"frozen", "match"} & unstructure(attrs.evolve(featurizer, frozen=None)).keys()


def test_a_name_ends_where_a_part_of_it_ends():
    network = nn.ModuleDict({"layer1": nn.Linear(2, 2), "layer10": nn.Linear(2, 2)})
    freeze_layers(network, ["layer1"])
    assert [name for name, one in network.named_parameters() if one.requires_grad] == [
        "layer10.weight",
        "layer10.bias",
    ]


@pytest.mark.parametrize(
    ("layer", "hint"),
    [
        ("layer11", "did you mean layer1?"),
        ("layer1.0.conv3", r"did you mean layer1\.0\.conv\d?"),
        ("layer*", "did you mean layer"),
        ("fc", "expected a name below conv1, bn1, layer1, layer2, layer3, layer4"),
        ("", "expected a name below conv1"),
        ("featurizer.layer1", "expected a name below|did you mean"),
    ],
)
def test_names_that_no_parameter_begins_with_are_refused(layer, hint):
    with pytest.raises(InputError, match=rf"^frozen: got '{layer.replace('*', '[*]')}', which is no layer.*{hint}"):
        build(ResNet(18, "random", frozen=("conv1", layer)))


@pytest.mark.parametrize("given", ["layer1", ()])
def test_frozen_is_a_list_of_names(given):
    with pytest.raises(InputError, match=r"frozen: got .*, expected names of layers in a list"):
        ResNet(18, "random", frozen=given)


def test_a_shared_parameter_is_frozen_by_either_name():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    freeze_layers(network, ["1"])
    assert not network[0].weight.requires_grad
    assert network[0].bias.requires_grad
