"""The seed alone decides the draws within the context, which leaves no trace."""

import torch

from fishr.seeding import seeded


def test_a_seed_decides_the_draws_and_the_users_own_go_on() -> None:
    cpu = torch.device("cpu")
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeded(3, cpu):
        first = torch.rand(4)
    assert torch.equal(torch.rand(2), expected)
    with seeded(3, cpu):
        assert torch.equal(torch.rand(4), first)
    with seeded(4, cpu):
        assert not torch.equal(torch.rand(4), first)
