"""Batches read ahead of their steps: the same as drawn in each step, from any state on."""

import attrs
import pytest
import torch
from attrs import evolve, frozen

from fishr.data.batches import FullBatch, Minibatch
from fishr.data.domains import Domain, Domains
from fishr.errors import InputError
from fishr.models import MLP
from fishr.protocols import colored_digits
from fishr.ranks import Ranks
from fishr.training import Stepped, train
from fishr.training.loop import batch_source
from fishr.training.prefetch import AHEAD, Prefetch, step_seed


@frozen(eq=False)
class Noisy:
    """Rows of a tensor that are read with noise of their seed, as augmentation would."""

    rows: torch.Tensor
    bad: bool = False

    @property
    def shape(self):
        return self.rows.shape

    @property
    def dtype(self):
        return self.rows.dtype

    def __len__(self):
        return len(self.rows)

    def select(self, rows):
        return evolve(self, rows=self.rows[torch.tensor(rows)])

    def plain(self):
        return self

    def to(self, device):
        return self

    def finish(self, read, rows, seeds=None, out=None):
        return read if out is None else out.copy_(read)

    def read(self, rows, seeds=None):
        if self.bad:
            raise InputError("photo/7.jpg: cannot be read")
        found = self.rows[torch.tensor(rows)].clone()
        for place, seed in enumerate(seeds or ()):
            found[place] += torch.randn(found.shape[1:], generator=torch.Generator().manual_seed(seed))
        return found


def _domains(lazy=True, count=50):
    made = []
    for index in range(2):
        draws = torch.Generator().manual_seed(index)
        rows = torch.randn(count, 4, generator=draws)
        labels = (rows.sum(1) > 0).long()
        made.append(Domain(f"env{index}", Noisy(rows) if lazy else rows, labels))
    return tuple(made)


def _experiment(steps=9):
    return attrs.evolve(
        colored_digits(),
        data=lambda seed, data_dir: Domains(_domains(), (), classes=2),
        featurizer=MLP(widths=(5,)),
        batches=Minibatch(6),
        steps=steps,
        evaluate_every=4,
    )


def _drawn(domains, generator, steps):
    found = []
    for _ in range(steps):
        found.append(Minibatch(6).draw(domains, generator))
        step_seed(generator)
    return found


def test_a_feed_gives_what_each_step_would_draw():
    domains, one, other = _domains(), torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    feed = Prefetch(Minibatch(6), domains)
    for expected in _drawn(domains, one, 7):
        batch = feed(other)
        step_seed(other)
        assert torch.equal(batch.inputs, expected.inputs)
        assert torch.equal(batch.labels, expected.labels)
        assert batch.sizes == expected.sizes
    assert torch.equal(one.get_state(), other.get_state())


def test_successive_steps_read_each_batch_once():
    """Ahead of the steps, by their very draws: had one to begin anew, it would read its rows again."""
    read = []

    class Counted(Noisy):
        def read(self, rows, seeds=None):
            read.extend(seeds)
            return super().read(rows, seeds)

    domains = tuple(evolve(domain, inputs=Counted(domain.inputs.rows)) for domain in _domains())
    feed, generator = Prefetch(Minibatch(6), domains), torch.Generator().manual_seed(3)
    for _ in range(7):
        feed(generator)
        step_seed(generator)
    while feed._queue:
        feed._queue.popleft().drawn.result()
    assert len(read) == len(set(read)) == (7 + AHEAD) * 2 * 6


@pytest.mark.parametrize("count", [2, 3, 4])
def test_ranks_read_their_shares_of_the_rows_and_seeds_of_one(count):
    domains, whole = _domains(), torch.Generator().manual_seed(3)
    generators = [torch.Generator().manual_seed(3) for _ in range(count)]
    feeds = [Prefetch(Minibatch(6), domains, Ranks(number, count)) for number in range(count)]
    for expected in _drawn(domains, whole, 5):
        parts = [feed(generator) for feed, generator in zip(feeds, generators, strict=True)]
        for generator in generators:
            step_seed(generator)
        shares = [part.inputs.split(part.sizes) for part in parts]
        assert torch.equal(torch.cat([share[k] for k in range(2) for share in shares]), expected.inputs)
    assert all(torch.equal(generator.get_state(), whole.get_state()) for generator in generators)


def test_a_feed_goes_on_from_any_state():
    domains, feed = _domains(), Prefetch(Minibatch(6), _domains())
    generator = torch.Generator().manual_seed(3)
    feed(generator)
    for seed in (8, 3, 3):
        batch = feed(torch.Generator().manual_seed(seed))
        expected = Minibatch(6).draw(domains, torch.Generator().manual_seed(seed))
        assert torch.equal(batch.inputs, expected.inputs)


def _states(experiment, state=None):
    return [event.state for event in train(experiment, state=state) if isinstance(event, Stepped)]


def test_a_run_on_files_goes_on_to_the_same_bits():
    experiment = _experiment()
    whole = _states(experiment)
    for begun in (1, 4, 8):
        rest = _states(experiment, state=whole[begun - 1])
        assert len(rest) == 9 - begun
        for one, other in zip(rest, whole[begun:], strict=True):
            assert all(torch.equal(p, other.parameters[name]) for name, p in one.parameters.items())
            assert torch.equal(one.generator, other.generator)


def test_a_run_on_files_sees_their_augmentation():
    """The same rows without noise end elsewhere: the seeds reach the reading."""
    noisy = _states(_experiment())[-1]
    still = attrs.evolve(_experiment(), data=lambda seed, data_dir: Domains(_domains(lazy=False), (), classes=2))
    plain = _states(still)[-1]
    assert not torch.equal(noisy.parameters["head.weight"], plain.parameters["head.weight"])


def test_each_source_is_the_cheapest():
    experiment = _experiment()
    assert isinstance(batch_source(experiment, _domains()), Prefetch)
    held = _domains(lazy=False)
    assert batch_source(experiment, held) is held
    assert batch_source(attrs.evolve(experiment, batches=FullBatch()), held).sizes == (50, 50)
    mixed = (held[0], _domains()[1])
    assert isinstance(batch_source(experiment, mixed), Prefetch)


def test_a_file_that_cannot_be_read_stops_the_run():
    bad = tuple(evolve(d, inputs=evolve(d.inputs, bad=True)) for d in _domains())
    experiment = attrs.evolve(_experiment(), data=lambda seed, data_dir: Domains(bad, (), classes=2))
    with pytest.raises(InputError, match=r"photo/7\.jpg: cannot be read"):
        list(train(experiment))
