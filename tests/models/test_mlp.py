import pytest
import torch
from torch import nn

from fishr.errors import InputError
from fishr.models.mlp import MLP


def test_the_default_is_the_irm_network():
    featurizer = MLP()((2, 14, 14), torch.Generator().manual_seed(0))
    shapes = [tuple(parameter.shape) for parameter in featurizer.parameters()]
    assert shapes == [(390, 392), (390,), (390, 390), (390,)]
    assert [type(layer) for layer in featurizer] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU]


@pytest.mark.parametrize("shape", [(7,), (2, 8, 8), (3, 1, 2, 2)])
@pytest.mark.parametrize("widths", [(), (5,), (6, 5)])
def test_features_are_what_the_module_gives(shape, widths):
    mlp = MLP(widths)
    features = mlp(shape, torch.Generator().manual_seed(0))(torch.ones(3, *shape))
    assert features.shape == (3, mlp.features(shape))


def test_the_output_equals_the_matrix_products_by_hand():
    featurizer = MLP((5, 4))((2, 3), torch.Generator().manual_seed(0)).double()
    inputs = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, second = featurizer[1], featurizer[3]
    hidden = (inputs.reshape(6, 6) @ first.weight.T + first.bias).clamp(min=0)
    expected = (hidden @ second.weight.T + second.bias).clamp(min=0)
    assert torch.allclose(featurizer(inputs), expected, rtol=1e-12, atol=1e-12)


def test_one_seed_is_one_network():
    first, again, other = (
        MLP((5,))((3,), torch.Generator().manual_seed(seed)).state_dict()["1.weight"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_layers_without_features_are_refused():
    with pytest.raises(InputError, match="widths: got 0"):
        MLP((390, 0))
