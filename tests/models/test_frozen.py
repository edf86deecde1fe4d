"""A row's features to the same bits in any batch, and weights that stay."""

import pytest
import torch
from torch import nn

from fishr.models.frozen import FrozenFeaturizer, features_by_block

FEATURIZERS = {
    "mlp": (nn.Sequential(nn.Linear(32, 40), nn.ReLU(), nn.Linear(40, 24)), (32,)),
    # Few outputs of an odd number of inputs: these products round by a row's place.
    "narrow": (nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)), (7,)),
    "convolution": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
        (3, 9, 9),
    ),
    "flatten": (nn.Flatten(), (2, 3)),
}


@pytest.fixture(params=FEATURIZERS)
def case(request):
    featurizer, shape = FEATURIZERS[request.param]
    return featurizer.eval(), torch.randn(150, *shape)


@pytest.mark.slow
def test_a_place_that_counts_is_noticed_in_any_narrow_network():
    """Of random weights one pass over four rows misses one network in twenty."""
    for seed in range(60):
        torch.manual_seed(seed)
        narrow = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
        inputs = torch.randn(150, 7)
        whole = features_by_block(narrow, inputs)
        assert torch.equal(features_by_block(narrow, inputs[5:135]), whole[5:135]), seed


def test_a_block_that_is_known_is_taken():
    asked = []

    def featurizer(rows):
        asked.append(len(rows))
        return rows * 2

    assert torch.equal(features_by_block(featurizer, torch.ones(70, 3), block=64), torch.full((70, 3), 2.0))
    assert asked == [64, 64]


def test_a_row_has_the_same_bits_in_any_batch(case):
    featurizer, inputs = case
    whole = features_by_block(featurizer, inputs)
    for rows in (1, 2, 9, 63, 64, 65, 130):
        for start in (0, 1, 5, 20):
            assert torch.equal(features_by_block(featurizer, inputs[start : start + rows]), whole[start : start + rows])
        drawn = torch.randint(len(inputs), (rows,))
        assert torch.equal(features_by_block(featurizer, inputs[drawn]), whole[drawn])


def test_they_are_the_featurizers_own_to_rounding(case):
    featurizer, inputs = case
    with torch.no_grad():
        torch.testing.assert_close(features_by_block(featurizer, inputs), featurizer(inputs))


def test_the_module_gives_the_same_bits_as_the_function(case):
    featurizer, inputs = case
    expected = features_by_block(featurizer, inputs)
    frozen = FrozenFeaturizer(featurizer).train()
    assert torch.equal(frozen(inputs), expected)
    assert torch.equal(frozen(inputs[70:]), expected[70:])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(frozen(inputs[3:5]), features_by_block(featurizer, inputs)[3:5])


def test_nothing_in_it_learns_or_remembers():
    frozen = FrozenFeaturizer(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.9)))
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    frozen.train()
    features = frozen(torch.randn(8, 4, requires_grad=True))
    assert not features.requires_grad
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert (features != 0).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())
