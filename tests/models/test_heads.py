import pytest
import torch
from torch import nn

from fishr.configuration import structure, unstructure
from fishr.errors import InputError
from fishr.models.heads import LinearHead, MLPHead
from fishr.models.initialization import xavier_linear


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_a_linear_head_is_exactly_one_linear_layer():
    head = LinearHead()(6, 3, generator())
    assert type(head) is nn.Linear
    assert torch.equal(head.weight, xavier_linear(6, 3, generator()).weight)
    assert head.bias.shape == (3,)


def test_torchs_first_weights_are_those_of_its_linear_layer():
    head = LinearHead(init="torch")(400, 200, generator())
    assert type(head) is nn.Linear
    for weights in (head.weight, head.bias):
        assert weights.abs().max() <= 1 / 20
        assert weights.abs().max() > 0.9 / 20
    # A uniform variable on ±a has the variance a² / 3.
    assert head.weight.var().item() == pytest.approx(1 / 1200, rel=0.03)
    torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator())))
    expected = nn.Linear(400, 200)
    assert torch.equal(head.weight, expected.weight)
    assert torch.equal(head.bias, expected.bias)


@pytest.mark.parametrize("init", ["xavier", "torch"])
def test_a_linear_head_is_drawn_from_the_generator_alone(init):
    before = torch.get_rng_state()
    first, again = (LinearHead(init)(6, 3, generator()).weight for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, LinearHead(init)(6, 3, torch.Generator().manual_seed(1)).weight)


@pytest.mark.parametrize("init", ["kaiming", "", "Torch"])
def test_other_first_weights_are_refused(init):
    with pytest.raises(InputError, match=f"init: got '{init}', expected 'xavier' or 'torch'"):
        LinearHead(init)


def test_a_linear_head_reads_back_from_a_table():
    assert structure({}, LinearHead) == LinearHead()
    assert structure(unstructure(LinearHead("torch")), LinearHead) == LinearHead("torch")


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
