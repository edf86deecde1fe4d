import pytest
import torch
from torch import nn

from fishr.models.mnist_cnn import MNISTCNN


def written_out(channels: int) -> nn.Sequential:
    """The network of DomainBed's paper, layer by layer."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, 1, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 64),
        nn.Conv2d(64, 128, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
        nn.Conv2d(128, 128, 3, 1, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
        nn.Conv2d(128, 128, 3, 1, padding=1),
        nn.ReLU(),
        nn.GroupNorm(8, 128),
    )


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (2, 28), (3, 4), (4, 1)])
def test_it_is_the_network_written_out(channels, side):
    shape = (channels, side, side)
    module = MNISTCNN()(shape, torch.Generator().manual_seed(0))
    torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(0))))
    oracle, inputs = written_out(channels), torch.randn(5, *shape)
    torch.testing.assert_close(module(inputs), oracle(inputs).mean((2, 3)))


def test_the_first_weights_are_uniform_as_torch_draws_them():
    first, _, _, second, *_ = MNISTCNN()((2, 28, 28), torch.Generator().manual_seed(0))
    for layer, fan_in in ((first, 2 * 9), (second, 64 * 9)):
        bound = fan_in**-0.5
        for weights in (layer.weight, layer.bias):
            assert 0.9 * bound < weights.abs().max() <= bound
        # A uniform variable on ±a has the variance a² / 3.
        assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.1)


def test_nothing_depends_on_train_or_eval_mode():
    module, inputs = MNISTCNN()((1, 28, 28), torch.Generator().manual_seed(0)), torch.randn(4, 1, 28, 28)
    assert torch.equal(module.train()(inputs), module.eval()(inputs))
