"""Batches whose files are read ahead of their steps, by the draws that the steps will make."""

from collections import deque

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.batches import Drawn, Minibatch
from fishr.data.domains import Domain
from fishr.ranks import ALONE, Ranks
from fishr.types import DomainBatch

AHEAD = 3


def step_seed(generator: torch.Generator) -> int:
    """Draw the seed of a step's random layers, 0 to 2⁶² − 1, which a step does after its batch."""
    return int(torch.randint(2**62, (), generator=generator))


@frozen(eq=False)
class _Ahead:
    """One batch, with the generator's state before and after its draws."""

    before: Tensor
    after: Tensor
    drawn: Drawn


class Prefetch:
    """Batches of successive steps, read ahead; each is the one that its step would draw itself."""

    def __init__(self, batches: Minibatch, domains: tuple[Domain, ...], ranks: Ranks = ALONE) -> None:
        self._batches, self._domains, self._ranks = batches, domains, ranks
        self._queue = deque[_Ahead]()
        self._generator = torch.Generator()

    def __call__(self, generator: torch.Generator) -> DomainBatch:
        """Return ``batches.draw(domains, generator, ranks)``; the generator advances likewise."""
        state = generator.get_state()
        if not self._queue or not torch.equal(self._queue[0].before, state):
            self._queue.clear()
            self._generator.set_state(state)
        while len(self._queue) <= AHEAD:
            before = self._generator.get_state()
            drawn = self._batches.begin(self._domains, self._generator, self._ranks)
            self._queue.append(_Ahead(before, self._generator.get_state(), drawn))
            step_seed(self._generator)
        first = self._queue.popleft()
        generator.set_state(first.after)
        return first.drawn.result()
