import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fishr.data.batches import FullBatch, Minibatch
from fishr.data.domains import Domain
from fishr.errors import InputError
from fishr.ranks import Ranks


def numbered(*sizes: int) -> tuple[Domain, ...]:
    """Domain k holds the inputs [100 k + i, ...]; the label tells odd rows from even ones."""
    return tuple(
        Domain(f"{k}", 100.0 * k + torch.arange(n).float()[:, None], torch.arange(n) % 2) for k, n in enumerate(sizes)
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@given(sizes=sizes)
def test_a_full_batch_is_every_row_in_order_and_draws_nothing(sizes):
    domains, draws = numbered(*sizes), generator()
    before = draws.get_state()
    batch = FullBatch().draw(domains, draws)
    assert batch.sizes == tuple(sizes)
    assert batch.inputs[:, 0].tolist() == [100.0 * k + i for k, n in enumerate(sizes) for i in range(n)]
    assert batch.labels.tolist() == [i % 2 for n in sizes for i in range(n)]
    assert torch.equal(draws.get_state(), before)


@given(sizes=sizes, size=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_a_minibatch_takes_size_rows_of_each_domain(sizes, size, seed):
    batch = Minibatch(size).draw(numbered(*sizes), generator(seed))
    assert batch.sizes == (size,) * len(sizes)
    for k, count in enumerate(sizes):
        rows = batch.inputs[k * size : (k + 1) * size, 0] - 100 * k
        assert rows.min() >= 0
        assert rows.max() < count
        assert torch.equal(batch.labels[k * size : (k + 1) * size], rows.long() % 2)
        if count >= size:
            assert len(rows.unique()) == size


@pytest.mark.parametrize("count", [2, 5])
def test_every_row_is_drawn_equally_often(count):
    # Two domains: one smaller than the batch (with replacement), one larger (without).
    domains, draws, size, steps = numbered(count), generator(), 3, 4000
    drawn = torch.cat([Minibatch(size).draw(domains, draws).inputs[:, 0] for _ in range(steps)])
    share = torch.bincount(drawn.long(), minlength=count) / len(drawn)
    assert torch.allclose(share, torch.full((count,), 1 / count), atol=5 * 0.5 / len(drawn) ** 0.5)


def test_the_generator_decides_and_advances():
    domains, draws = numbered(50, 60), generator(1)
    first, second = (Minibatch(8).draw(domains, draws).inputs for _ in range(2))
    assert torch.equal(first, Minibatch(8).draw(domains, generator(1)).inputs)
    assert not torch.equal(first, second)


def test_a_restored_generator_continues_with_the_same_rows():
    domains, draws = numbered(50, 2), generator(1)
    Minibatch(8).draw(domains, draws)
    state = draws.get_state()
    expected = Minibatch(8).draw(domains, draws).inputs
    restored = torch.Generator()
    restored.set_state(state)
    assert torch.equal(Minibatch(8).draw(domains, restored).inputs, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_domains_on_a_device_give_the_rows_that_the_cpu_generator_draws():
    here = numbered(50, 2)
    there = tuple(Domain(domain.name, domain.inputs.cuda(), domain.labels.cuda()) for domain in here)
    for batches in (FullBatch(), Minibatch(8)):
        got, expected = batches.draw(there, generator()), batches.draw(here, generator())
        assert got.inputs.is_cuda
        assert torch.equal(got.inputs.cpu(), expected.inputs)
        assert torch.equal(got.labels.cpu(), expected.labels)


def test_an_empty_minibatch_is_refused():
    with pytest.raises(InputError, match="size: got 0, expected a whole number of at least 1"):
        Minibatch(0)


def _together(count, domains, draw):
    """All ranks' shares as one batch, domain by domain in the order of ranks."""
    parts = [draw(Ranks(number, count)) for number in range(count)]
    inputs = [list(part.inputs.split(part.sizes)) for part in parts]
    labels = [list(part.labels.split(part.sizes)) for part in parts]
    assert all(min(part.sizes) >= 1 for part in parts)
    return [torch.cat([each[k] for each in values]) for values in (inputs, labels) for k in domains]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("batches", [FullBatch(), Minibatch(5), Minibatch(6, replace=True)])
def test_the_shares_of_ranks_are_the_batch_of_one(batches, count):
    domains, whole = numbered(7, 4, 12), generator(3)
    expected = batches.draw(domains, whole)
    ends = []

    def draw(ranks):
        own = generator(3)
        made = batches.draw(domains, own, ranks)
        ends.append(own.get_state())
        return made

    found = _together(count, range(3), draw)
    assert all(
        map(torch.equal, found, [*expected.inputs.split(expected.sizes), *expected.labels.split(expected.sizes)])
    )
    assert all(torch.equal(end, whole.get_state()) for end in ends)


@pytest.mark.parametrize("batches", [FullBatch(), Minibatch(3)])
def test_fewer_rows_than_ranks_are_refused(batches):
    with pytest.raises(
        InputError, match="got 3 samples of a domain for 4 ranks, expected at least 4; draw more samples, or"
    ):
        batches.draw(numbered(3, 9), generator(), Ranks(0, 4))
