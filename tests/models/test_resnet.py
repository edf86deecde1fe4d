import ast
import hashlib
import re
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from fishr.data.images import Preprocessing
from fishr.errors import InputError
from fishr.models.resnet import ResNet

SMALL = ResNet(depth=18, weights="random")
INPUTS = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(network: ResNet, channels: int = 3, seed: int = 0) -> nn.Module:
    return network((channels, 32, 32), torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def published():
    """A trained network of torchvision, with statistics of its own."""
    torch.manual_seed(5)
    network = torchvision.models.resnet18()
    network(torch.randn(8, 3, 32, 32))
    return network.eval()


@pytest.fixture(scope="module")
def file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(published.state_dict(), path)
    return path


def features_of(network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """What torchvision's network gives to its last layer."""
    seen = []
    handle = network.fc.register_forward_pre_hook(lambda layer, arguments: seen.append(arguments[0]))
    network(inputs)
    handle.remove()
    return seen[0]


def with_state(file, change):
    """Another file, of changed weights."""
    path = file.with_name("changed.pth")
    torch.save(change(torch.load(file, weights_only=True)), path)
    return str(path)


def test_random_weights_are_torchvisions_from_a_drawn_seed():
    module = build(SMALL).eval()
    torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(0))))
    torch.testing.assert_close(module(INPUTS), features_of(torchvision.models.resnet18().eval(), INPUTS))


def test_the_features_of_a_file_are_those_of_its_network(file, published):
    expected = features_of(published, INPUTS)
    assert torch.equal(build(ResNet(18, str(file))).eval()(INPUTS), expected)
    bare = with_state(file, lambda state: {k: v for k, v in state.items() if not k.startswith("fc.")})
    assert torch.equal(build(ResNet(18, bare)).eval()(INPUTS), expected)


@pytest.mark.slow
def test_a_file_of_other_names_is_matched_by_order(file, published):
    renamed = with_state(file, lambda state: {f"_{k}": v for k, v in state.items() if "num_batches" not in k})
    with pytest.warns(
        UserWarning, match=r"102 tensors are matched by order, .*: _conv1.weight to conv1.weight, …, _fc.b"
    ):
        module = build(ResNet(18, renamed, match="order")).eval()
    assert torch.equal(module(INPUTS), features_of(published, INPUTS))


def test_a_file_of_a_wrapper_gives_its_networks_features(file, published):
    wrapped = with_state(file, lambda state: {"model": {f"module.{k}": v for k, v in state.items()}})
    assert torch.equal(build(ResNet(18, wrapped)).eval()(INPUTS), features_of(published, INPUTS))


def test_a_relative_path_starts_at_the_working_directory(file, published, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert torch.equal(build(ResNet(18, file.name)).eval()(INPUTS), features_of(published, INPUTS))


def test_the_largest_network():
    module = build(ResNet(weights="random")).eval()
    # He et al.'s ResNet-50 has 25,557,032 parameters as torchvision documents it, 2049 x 1000 in the last layer.
    assert sum(parameter.numel() for parameter in module.parameters()) == 25_557_032 - 2049 * 1000
    assert module(INPUTS).shape == (4, ResNet().features((3, 32, 32))) == (4, 2048)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["file", "random"])
def test_other_channels_have_cyclic_copies(file, weights):
    network = ResNet(18, str(file) if weights == "file" else "random")
    of_three = build(network).conv1.weight
    for channels in (1, 2, 5, 7):
        module = build(network, channels).conv1
        assert module.weight.shape == (64, channels, 7, 7)
        assert module.in_channels == channels
        for channel in range(channels):
            assert torch.equal(module.weight[:, channel], of_three[:, channel % 3])


def test_a_file_of_just_these_channels_is_taken_as_it_is(file):
    first = torch.randn(64, 5, 7, 7)
    changed = with_state(file, lambda state: state | {"conv1.weight": first})
    assert torch.equal(build(ResNet(18, changed), channels=5).conv1.weight, first)
    with pytest.raises(InputError, match=r"shape \(64, 5, 7, 7\) for conv1.weight, expected \(64, 4, 7, 7\)"):
        build(ResNet(18, changed), channels=4)


def test_the_generator_moves_on_by_as_much_with_any_weights(file):
    random, given = (torch.Generator().manual_seed(0) for _ in range(2))
    SMALL((3, 32, 32), random)
    ResNet(18, str(file))((3, 32, 32), given)
    assert torch.equal(random.get_state(), given.get_state())


def test_frozen_statistics_stay_and_others_move(file):
    frozen, free = (build(ResNet(18, str(file), freeze_norm=freeze)).train() for freeze in (True, False))
    assert torch.equal(frozen(INPUTS), frozen.eval()(INPUTS))
    before = free.bn1.running_mean.clone()
    assert not torch.equal(free(INPUTS), frozen(INPUTS))
    assert not torch.equal(free.bn1.running_mean, before)
    assert torch.equal(frozen.bn1.running_mean, before)
    assert frozen.bn1.weight.requires_grad


def test_names_are_torchvisions_whatever_the_settings(published):
    expected = [name for name in published.state_dict() if not name.startswith("fc.")]
    for network in (SMALL, ResNet(18, "random", freeze_norm=False, dropout=0.5)):
        assert list(build(network).state_dict()) == expected


def test_dropout_acts_on_the_features_while_training(file):
    module, plain = build(ResNet(18, str(file), dropout=0.25)), build(ResNet(18, str(file)))
    expected, features = plain(INPUTS), module.train()(INPUTS)
    kept = features != 0
    torch.testing.assert_close(features[kept], expected[kept] / 0.75)
    assert ((expected != 0) & ~kept).float().sum() / (expected != 0).sum() == pytest.approx(0.25, abs=0.06)
    assert torch.equal(module.eval()(INPUTS), expected)


def test_preprocessing_is_that_of_imagenets_weights():
    assert ResNet(18).published_preprocessing() == Preprocessing(224)
    assert ResNet(18, "mine.pth").published_preprocessing() is SMALL.published_preprocessing() is None


@pytest.mark.parametrize(("depth", "name"), [(18, "resnet18-f37072fd.pth"), (50, "resnet50-0676ba61.pth")])
def test_absent_imagenet_weights_are_told_with_the_line_that_fetches_them(hub, no_network, depth, name):
    with pytest.raises(InputError) as told:
        build(ResNet(depth))
    message = str(told.value)
    assert message.startswith(f"weights: no {name} in {hub}; ")
    assert 'weights="random"' in message
    assert "path of a file" in message
    assert "\n" not in message
    _, call = ast.parse(re.search(r'python -c "([^"]+)"', message)[1]).body
    assert ast.unparse(call) == f"torchvision.models.resnet{depth}(weights='IMAGENET1K_V1')"
    assert hasattr(torchvision.models.get_model_weights(f"resnet{depth}"), "IMAGENET1K_V1")


def test_damaged_imagenet_weights_are_refused_by_name(hub, file, no_network):
    (hub / "resnet18-f37072fd.pth").write_bytes(file.read_bytes())
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth: cut short or damaged"):
        build(ResNet(18))


def test_imagenet_weights_come_from_torch_hubs_folder(hub, file, published, monkeypatch, no_network):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (hub / f"resnet18-{digest[:8]}.pth").write_bytes(file.read_bytes())
    weights = SimpleNamespace(url=f"https://example.org/models/resnet18-{digest[:8]}.pth")
    monkeypatch.setattr(torchvision.models, "ResNet18_Weights", SimpleNamespace(IMAGENET1K_V1=weights))
    assert torch.equal(build(ResNet(18)).eval()(INPUTS), features_of(published, INPUTS))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "bn1.bias"}, r"shape none for bn1.bias"),
        (lambda state: state | {"layer1.0.conv1.weight": torch.ones(2)}, r"shape \(2,\) for layer1.0.conv1.weight"),
        (lambda state: state | {"conv1.weight": torch.ones(3)}, r"shape \(3,\) for conv1.weight"),
        (lambda state: state | {"head.weight": torch.ones(2)}, r"for head.weight, expected none"),
    ],
)
def test_weights_of_another_network_are_refused(file, change, reason):
    with pytest.raises(InputError, match=rf"changed\.pth has .*{reason}"):
        build(ResNet(18, with_state(file, change)))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"depth": 34}, "depth: got 34, expected 18 or 50"),
        ({"weights": ""}, "weights: got"),
        ({"match": "order"}, "match: got 'order' with weights = 'imagenet', expected the path of a file"),
        ({"match": "order", "weights": "random"}, "match: got 'order' with weights = 'random'"),
        ({"dropout": -0.1}, "dropout: got -0.1"),
    ],
)
def test_networks_that_there_are_not_are_refused(settings, reason):
    with pytest.raises(InputError, match=reason):
        ResNet(**settings)
