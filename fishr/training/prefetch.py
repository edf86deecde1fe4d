"""Batches whose files are read ahead of their steps, by the draws that the steps will make."""

from collections import deque
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.batches import Drawn, Minibatch
from fishr.data.domains import Domain
from fishr.ranks import ALONE, Ranks
from fishr.training.experiment import Experiment
from fishr.types import DomainBatch

AHEAD = 3


def step_seed(generator: torch.Generator) -> int:
    """What a step draws after its batch: the seed of its random layers.

    Args:
        generator: of the training state; it advances.

    Returns:
        From 0 to 2⁶² − 1.
    """
    return int(torch.randint(2**62, (), generator=generator))


@frozen(eq=False)
class _Ahead:
    """One batch, with the generator's state before and after its draws."""

    before: Tensor
    after: Tensor
    drawn: Drawn


class Prefetch:
    """The batches of successive steps, each the one that its step would draw itself.

    It holds nothing that a step depends on: asked with a generator in any other state, it begins there.

    Args:
        batches: how they are drawn.
        domains: the training domains.
        ranks: the processes that share each batch.

    Example:
        >>> domain = Domain("only", torch.arange(9.0).unsqueeze(1), torch.zeros(9, dtype=torch.int64))
        >>> feed, generator = Prefetch(Minibatch(size=2), (domain,)), torch.Generator().manual_seed(0)
        >>> own = Minibatch(size=2).draw((domain,), torch.Generator().manual_seed(0))
        >>> torch.equal(feed(generator).inputs, own.inputs)
        True
    """

    def __init__(self, batches: Minibatch, domains: tuple[Domain, ...], ranks: Ranks = ALONE) -> None:
        """Begin nothing yet."""
        self._ranks = ranks
        self._batches = batches
        self._domains = domains
        self._queue = deque[_Ahead]()
        self._generator = torch.Generator()

    def __call__(self, generator: torch.Generator) -> DomainBatch:
        """The batch that ``batches.draw(domains, generator, ranks)`` would give; the generator advances as it would.

        Raises:
            InputError: a file cannot be read.
        """
        state = generator.get_state()
        if not self._queue or not torch.equal(self._queue[0].before, state):
            self._queue.clear()
            self._generator.set_state(state)
        while len(self._queue) <= AHEAD:
            self._queue.append(self._next())
        first = self._queue.popleft()
        generator.set_state(first.after)
        return first.drawn.result()

    def _next(self) -> _Ahead:
        before = self._generator.get_state()
        drawn = self._batches.begin(self._domains, self._generator, self._ranks)
        after = self._generator.get_state()
        step_seed(self._generator)
        return _Ahead(before, after, drawn)


def source_of(
    experiment: Experiment, domains: tuple[Domain, ...], ranks: Ranks = ALONE
) -> tuple[Domain, ...] | DomainBatch | Prefetch:
    """Where the steps of a run get their batches from, at the least cost.

    Args:
        experiment: how batches are drawn.
        domains: the training domains.
        ranks: the processes that share each batch.

    Returns:
        The one batch of ``FullBatch``, a feed where files are read, else the domains themselves.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> experiment = colored_digits()
        >>> source_of(experiment, experiment.data(experiment.seed, None).training).sizes
        (3250, 3250)
    """
    batches: Any = experiment.batches
    if getattr(batches, "fixed", False):
        return batches.draw(domains, torch.Generator(), ranks)
    if not hasattr(batches, "begin") or all(isinstance(domain.inputs, Tensor) for domain in domains):
        return domains
    return Prefetch(batches, domains, ranks)
