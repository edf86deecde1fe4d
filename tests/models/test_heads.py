import pytest
import torch
from torch import nn

from fishr.errors import InputError
from fishr.models.heads import LinearHead, MLPHead
from fishr.models.linear import xavier_linear


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_linear_head_is_exactly_one_linear_layer():
    head = LinearHead()(6, 3, generator())
    assert type(head) is nn.Linear
    assert torch.equal(head.weight, xavier_linear(6, 3, generator()).weight)
    assert head.bias.shape == (3,)


@pytest.mark.parametrize("widths", [(5,), (5, 4)])
def test_an_mlp_head_ends_in_a_linear_layer(widths):
    head = MLPHead(widths)(6, 3, generator())
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU] * len(widths) + [nn.Linear]
    logits = head(torch.randn(50, 6, generator=generator()))
    assert logits.shape == (50, 3)
    assert logits.min() < 0


def test_layers_are_drawn_one_after_the_other():
    head = MLPHead((6,))(6, 6, generator())
    draws = generator()
    for layer in (head[0], head[2]):
        assert torch.equal(layer.weight, xavier_linear(6, 6, draws).weight)


@pytest.mark.parametrize(("widths", "reason"), [((), "widths: got none, .*use LinearHead"), ((0,), "widths: got 0")])
def test_a_head_without_hidden_features_is_refused(widths, reason):
    with pytest.raises(InputError, match=reason):
        MLPHead(widths)
