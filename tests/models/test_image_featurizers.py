"""What all featurizers of images have in common."""

import copy

import pytest
import torch
from torch import nn

from fishr.configuration import dumps, structure, unstructure
from fishr.errors import InputError
from fishr.models import MNISTCNN, LinearHead, ResNet, TimmBackbone, WideResNet
from fishr.models.featurizers import Featurizer, image_channels
from fishr.observation import observe
from fishr.types import DomainBatch

FEATURIZERS: dict[str, Featurizer] = {
    "mnist cnn": MNISTCNN(),
    "resnet": ResNet(depth=18, weights="random", dropout=0.5),
    "wide resnet": WideResNet(depth=10, width=1, dropout=0.5),
    "timm": TimmBackbone("test_resnet", pretrained=False, freeze_norm=True, dropout=0.5),
}
SHAPE = (3, 32, 32)


def build(featurizer: Featurizer, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    return featurizer(shape, torch.Generator().manual_seed(seed))


@pytest.fixture(params=FEATURIZERS)
def featurizer(request):
    return FEATURIZERS[request.param]


def test_the_generator_alone_decides_the_weights(featurizer):
    torch.manual_seed(1)
    first = build(featurizer).state_dict()
    torch.manual_seed(2)
    again, other = build(featurizer).state_dict(), build(featurizer, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    convolutions = [name for name, tensor in first.items() if tensor.ndim == 4]
    assert len(convolutions) >= 4
    assert not any(torch.equal(first[name], other[name]) for name in convolutions)


def test_the_global_generator_stays_as_it_was(featurizer):
    before = torch.get_rng_state()
    build(featurizer)
    featurizer.features(SHAPE)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_given_generator_moves_on(featurizer):
    generator = torch.Generator().manual_seed(0)
    first, second = featurizer(SHAPE, generator).state_dict(), featurizer(SHAPE, generator).state_dict()
    assert not all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 17, 23), (5, 32, 32)])
def test_features_are_what_the_module_gives(featurizer, shape):
    features = build(featurizer, shape=shape)(torch.randn(3, *shape))
    assert features.shape == (3, featurizer.features(shape))
    assert features.isfinite().all()


def test_every_row_and_every_weight_counts(featurizer):
    module, inputs = build(featurizer), torch.randn(4, *SHAPE, requires_grad=True)
    module(inputs).square().sum().backward()
    assert (inputs.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_copy_is_the_same_network_and_nothing_else(featurizer):
    module, inputs = build(featurizer).eval(), torch.randn(2, *SHAPE)
    twin = copy.deepcopy(module)
    expected = module(inputs)
    assert torch.equal(twin(inputs), expected)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert torch.equal(module(inputs), expected)


def test_a_step_in_bfloat16_observes_its_features(featurizer):
    module = build(featurizer)
    head = LinearHead(init="torch")(featurizer.features(SHAPE), 2, torch.Generator().manual_seed(0))
    batch = DomainBatch(torch.randn(6, *SHAPE), torch.tensor([0, 1, 0, 1, 0, 1]), sizes=(2, 4))
    seen = observe(module, head, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert seen.features.dtype == torch.float32
    (seen.domain_losses.mean() + seen.moments.variance.square().sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_it_reads_back_from_a_table(featurizer):
    assert structure(unstructure(featurizer), type(featurizer)) == featurizer
    assert dumps(featurizer) == dumps(copy.deepcopy(featurizer))


@pytest.mark.parametrize("shape", [(64,), (3, 32), (1, 3, 32, 32), (0, 32, 32), (3, 0, 32)])
def test_inputs_that_are_no_images_are_refused(featurizer, shape):
    with pytest.raises(InputError, match=r"got inputs of shape \(.*\), expected images \(channels, height, width\)"):
        build(featurizer, shape=shape)


def test_channels_come_first():
    assert image_channels("network", (1, 2, 3)) == 1
