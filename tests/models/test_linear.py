import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.models.linear import check_widths, hidden_layers, xavier_linear


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


@pytest.mark.parametrize("widths", [(0,), (3, -1)])
def test_layers_without_features_are_refused(widths):
    with pytest.raises(InputError, match=f"widths: got {widths[-1]}, expected at least 1 feature"):
        check_widths(widths)
