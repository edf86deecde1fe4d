import pytest
import torch
from torch import nn

from fishr.models.seeding import seeded_by


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
