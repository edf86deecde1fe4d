"""The seed alone decides the draws within the context, which leaves no trace."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fishr.seeding import SeededDraws, seeded


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


DRAWS = {
    "rand": lambda: torch.rand(3),
    "randn": lambda: torch.randn(3),
    "randint": lambda: torch.randint(9, (3,)),
    "randperm": lambda: torch.randperm(9),
    "normal": lambda: torch.normal(torch.zeros(3), 1.0),
    "bernoulli": lambda: torch.bernoulli(torch.full((9,), 0.5)),
    "bernoulli_": lambda: torch.empty(9).bernoulli_(0.5),
    "multinomial": lambda: torch.multinomial(torch.ones(9), 3),
    "uniform_": lambda: torch.empty(3).uniform_(1, 2),
    "normal_": lambda: torch.empty(3).normal_(),
    "random_": lambda: torch.empty(3).random_(9),
    "exponential_": lambda: torch.empty(3).exponential_(),
    "rand_like": lambda: torch.rand_like(torch.zeros(3)),
    "randn_like": lambda: torch.randn_like(torch.zeros(3)),
    "dirichlet": lambda: torch._sample_dirichlet(torch.ones(3)),  # pyright: ignore
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_from_a_seed_are_those_of_the_global_generator(name: str) -> None:
    with seeded(3, torch.device("cpu")):
        expected = torch.cat([DRAWS[name](), DRAWS[name]()])
    before = torch.get_rng_state()
    with SeededDraws(3):
        drawn = torch.cat([DRAWS[name](), DRAWS[name]()])
        given = torch.rand(2, generator=torch.Generator().manual_seed(8))
    assert torch.equal(drawn, expected)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(given, torch.rand(2, generator=torch.Generator().manual_seed(8)))


def test_other_threads_draw_from_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with SeededDraws(3), ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(torch.rand, 2).result(), expected)
        with SeededDraws(5):
            assert torch.equal(torch.rand(2), expected)
