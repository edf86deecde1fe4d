import copy
import pickle

import pytest
import torch
from torch import nn

from fishr.models.frozen import freeze_norm
from fishr.training.model import Model, evaluating


class OwnNorm(nn.BatchNorm2d):
    """A subclass, as timm's."""

    def forward(self, inputs):
        return super().forward(inputs) + 1


def network() -> nn.Sequential:
    inner = nn.Sequential(nn.Conv2d(3, 4, 1), OwnNorm(4), nn.Dropout(0.5))
    module = nn.Sequential(inner, nn.BatchNorm2d(4), nn.Flatten(), nn.BatchNorm1d(4 * 9), nn.LayerNorm(4 * 9))
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return module


INPUTS = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def norms(module):
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(
    "thaw",
    [
        lambda module: module.train(),
        lambda module: module.eval().train(),
        lambda module: [part.train() for part in module.modules()],
        lambda module: [setattr(part, "training", True) for part in module.modules()],
    ],
    ids=["train", "eval, train", "each part", "each flag"],
)
def test_nothing_takes_it_out_of_eval_mode(thaw):
    module = freeze_norm(network())
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    thaw(module)
    assert [norm.training for norm in norms(module)] == [False, False, False]
    assert module.training
    assert module[0][2].training
    module(INPUTS)
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())


def test_training_uses_the_statistics_it_came_with():
    module, plain = freeze_norm(network()), network()
    plain.load_state_dict(module.state_dict())
    module[0][2].p = 0.0
    assert torch.equal(module.train()(INPUTS), plain.eval()(INPUTS))


def test_code_that_restores_modes_leaves_it_frozen():
    model = Model(freeze_norm(network()), nn.Linear(36, 2))
    with evaluating(model):
        assert not model.featurizer.training
    assert model.featurizer.training
    assert not any(norm.training for norm in norms(model.featurizer))


def test_scale_and_shift_train():
    module = freeze_norm(network())
    module(INPUTS).square().sum().backward()
    for norm in norms(module):
        assert norm.weight.grad.norm() > 0
        assert norm.bias.grad.norm() > 0


def test_names_and_kinds_stay():
    module, plain = freeze_norm(network()), network()
    assert list(module.state_dict()) == list(plain.state_dict())
    assert isinstance(module[0][1], OwnNorm)
    assert type(module[4]) is nn.LayerNorm
    assert "FrozenBatchNorm2d(4" in repr(module)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))], ids=["copy", "pickle"]
)
def test_copies_are_frozen_as_well(duplicate):
    module = freeze_norm(nn.Sequential(nn.BatchNorm2d(3)))
    twin = duplicate(module).train()
    assert not twin[0].training
    assert torch.equal(twin(INPUTS), module(INPUTS))
    twin[0].running_mean.add_(1)
    assert torch.equal(module[0].running_mean, torch.zeros(3))


def test_freezing_twice_is_freezing_once():
    module = freeze_norm(freeze_norm(network()))
    assert type(module[1]).__mro__.count(nn.BatchNorm2d) == 1
    assert repr(module) == repr(freeze_norm(network()))
