import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fishr.models.initialization import hidden_layers, seeded_by, xavier_linear


@given(inputs=st.integers(1, 40), outputs=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_weights_are_xavier_uniform_and_biases_zero(inputs, outputs, seed):
    layer = xavier_linear(inputs, outputs, torch.Generator().manual_seed(seed))
    bound = math.sqrt(6 / (inputs + outputs))
    draws = torch.rand(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(layer.weight, (2 * draws - 1) * bound, atol=1e-6)
    assert torch.count_nonzero(layer.bias) == 0
    assert layer.weight.requires_grad
    assert layer.bias.requires_grad


def test_the_spread_is_that_of_the_uniform_distribution():
    weight = xavier_linear(300, 200, torch.Generator().manual_seed(0)).weight
    # Variance of a uniform on [-a, a] is a^2 / 3 = 2 / (inputs + outputs).
    assert weight.var().item() == pytest.approx(2 / 500, rel=0.02)


def test_the_global_generator_is_neither_read_nor_advanced():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = xavier_linear(5, 4, torch.Generator().manual_seed(7)).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    again = xavier_linear(5, 4, torch.Generator().manual_seed(7)).weight
    assert torch.equal(first, again)
    assert not torch.equal(first, xavier_linear(5, 4, torch.Generator().manual_seed(8)).weight)


def test_hidden_layers_follow_each_other_and_differ():
    layers = hidden_layers(4, (4, 4), torch.Generator().manual_seed(0))
    assert not torch.equal(layers[0].weight, layers[2].weight)
    assert hidden_layers(4, (), torch.Generator()) == []


def test_it_is_torchs_own_initialization_from_a_drawn_seed():
    with seeded_by(torch.Generator().manual_seed(3)):
        layer = nn.Conv2d(3, 4, 2)
    torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(3))))
    expected = nn.Conv2d(3, 4, 2)
    assert torch.equal(layer.weight, expected.weight)
    assert torch.equal(layer.bias, expected.bias)


def test_the_global_generator_is_put_back_also_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="num_groups"), seeded_by(torch.Generator()):
        nn.Sequential(nn.Linear(2, 2), nn.GroupNorm(2, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_given_generator_moves_by_one_draw_whatever_is_built():
    little, much, by_hand = (torch.Generator().manual_seed(5) for _ in range(3))
    with seeded_by(little):
        pass
    with seeded_by(much):
        nn.Linear(50, 50)
    torch.randint(2**63 - 1, (), generator=by_hand)
    assert torch.equal(little.get_state(), by_hand.get_state())
    assert torch.equal(much.get_state(), by_hand.get_state())


def test_the_default_device_has_no_say():
    with torch.device("meta"), seeded_by(torch.Generator()):
        assert nn.Linear(2, 2).weight.device.type == "cpu"
