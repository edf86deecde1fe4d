"""Which rows one training step sees: all of them, or some of each domain."""

from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain
from fishr.data.reading import Reading, begin_reading
from fishr.errors import InputError
from fishr.ranks import ALONE, Ranks
from fishr.types import DomainBatch


class Batches(Protocol):
    """How each step draws its batch from the training domains.

    A class whose draws are the same at every step has ``fixed = True``: the batch is drawn once and kept. One that can
    start to read files before the batch is needed has ``begin``, with the arguments of ``draw``, which returns an
    object whose ``result()`` is the batch.

    Example:
        >>> own: Batches = Minibatch(size=2)
    """

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks, /) -> DomainBatch:
        """Return samples of every domain, ordered by domain; of several ranks each returns its share.

        Args:
            domains: The training domains.
            generator: The only source of randomness, in the same state on all ranks.
            ranks: The processes that share the batch.
        """
        ...


@frozen
class FunctionBatches:
    """Batches of a plain function ``f(domains, generator) -> DomainBatch``.

    Every rank calls the function, and takes its share of each domain's samples.

    Args:
        function: Returns the batch of all ranks.

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> def first(domains, generator):
        ...     return DomainBatch(domains[0].inputs[:1], domains[0].labels[:1], sizes=(1,))
        >>> FunctionBatches(first).draw((domain,), torch.Generator()).sizes
        (1,)
    """

    function: Callable[[tuple[Domain, ...], torch.Generator], DomainBatch]

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks = ALONE) -> DomainBatch:
        """Return the function's batch, or this rank's share of it."""
        batch = self.function(domains, generator)
        if ranks.alone:
            return batch
        _refuse_empty_shares(list(batch.sizes), ranks)
        inputs, labels = (
            [ranks.share(part) for part in whole.split(list(batch.sizes))] for whole in (batch.inputs, batch.labels)
        )
        return DomainBatch(torch.cat(inputs), torch.cat(labels), tuple(map(len, labels)))


@frozen
class FullBatch:
    """Every row of every domain at every step.

    ``draw`` is a pure function that concatenates all domains, and nothing about it is random: a loop draws
    once, before its first step, and holds the batch.

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> FullBatch().draw((domain, domain), torch.Generator()).sizes
        (3, 3)
    """

    fixed: ClassVar[bool] = True

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks = ALONE) -> DomainBatch:
        """All rows, or this rank's share of each domain's, ordered by domain; the generator is not advanced.

        Raises:
            InputError: inputs that are read from files, which no batch can hold all of, or a domain with fewer rows
                than ranks.
        """
        held = [domain.inputs for domain in domains if isinstance(domain.inputs, Tensor)]
        if len(held) < len(domains):
            raise InputError("batches: got FullBatch of images that are read from files, expected Minibatch")
        _refuse_empty_shares([len(inputs) for inputs in held], ranks)
        labels = [ranks.share(domain.labels) for domain in domains]
        return DomainBatch(
            inputs=torch.cat([ranks.share(inputs) for inputs in held]),
            labels=torch.cat(labels),
            sizes=tuple(map(len, labels)),
        )


@frozen
class Minibatch:
    """The same number of rows of each domain, drawn anew at every step.

    A domain with at least ``size`` rows gives different ones; a smaller domain gives ``size`` draws with
    replacement.

    Args:
        size: rows of each domain, at least 1.
        replace: draw with replacement always, as DomainBed does.

    Raises:
        InputError: ``size`` is below 1.

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> Minibatch(size=2).draw((domain, domain), torch.Generator()).sizes
        (2, 2)
    """

    size: int
    replace: bool = False

    def __attrs_post_init__(self) -> None:
        """Refuse an empty batch."""
        if self.size < 1:
            raise InputError(f"size: got {self.size}, expected at least 1 row of each domain")

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks = ALONE) -> DomainBatch:
        """K times ``size`` rows, ordered by domain, on the domains' device; the generator advances.

        Of several ranks each makes all draws and takes its share of each domain's rows.

        Raises:
            InputError: fewer rows of a domain than ranks, or a file that cannot be read.
        """
        return self.begin(domains, generator, ranks).result()

    def begin(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks = ALONE) -> "Drawn":
        """The same batch while its files are being read; the generator advances at once."""
        _refuse_empty_shares([self.size], ranks)
        rows = [self._rows(len(domain.labels), generator) for domain in domains]
        seeds = [_seeds(domain, self.size, generator) for domain in domains]
        shares = [ranks.share(chosen) for chosen in rows]
        sizes = tuple(map(len, shares))
        room = _room(domains, sum(sizes))
        rooms = (None,) * len(domains) if room is None else room.split(sizes)
        given = zip(domains, shares, seeds, rooms, strict=True)
        return Drawn(
            inputs=tuple(
                _inputs(domain, chosen, own and ranks.share(own), part) for domain, chosen, own, part in given
            ),
            labels=torch.cat([_labels(domain, chosen) for domain, chosen in zip(domains, shares, strict=True)]),
            sizes=sizes,
            room=room,
        )

    def _rows(self, count: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        if self.replace or count < self.size:
            return torch.randint(count, (self.size,), generator=generator, device=device)
        return torch.randperm(count, generator=generator, device=device)[: self.size]


@frozen(eq=False)
class Drawn:
    """A batch that is drawn, of which files may still be being read.

    Args:
        inputs: of each domain.
        labels: [N], on the device of the batch.
        sizes: samples of each domain.
        room: where all inputs will lie side by side, if they are made there.

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> Minibatch(size=2).begin((domain,), torch.Generator()).result().inputs.shape
        torch.Size([2, 2])
    """

    inputs: tuple[Tensor | Reading, ...]
    labels: Tensor
    sizes: tuple[int, ...]
    room: Tensor | None = None

    def result(self) -> DomainBatch:
        """The batch, once all of it is read.

        Raises:
            InputError: a file cannot be read.
        """
        parts = [part if isinstance(part, Tensor) else part.result() for part in self.inputs]
        inputs = torch.cat(parts).to(self.labels.device) if self.room is None else self.room
        return DomainBatch(inputs, self.labels, self.sizes)


def _seeds(domain: Domain, count: int, generator: torch.Generator) -> list[int] | None:
    """Drawn ahead, so that an image's augmentation does not depend on which thread or rank reads it, or when."""
    if isinstance(domain.inputs, Tensor):
        return None
    return torch.randint(2**62, (count,), generator=generator).tolist()


def _labels(domain: Domain, rows: Tensor) -> Tensor:
    return domain.labels.index_select(0, rows.to(domain.labels.device))


def _room(domains: tuple[Domain, ...], rows: int) -> Tensor | None:
    """Where the inputs of a batch are made, if all of them are read for a CPU."""
    first = domains[0].inputs
    if any(isinstance(domain.inputs, Tensor) or domain.labels.device.type != "cpu" for domain in domains):
        return None
    return torch.empty(rows, *first.shape[1:], dtype=first.dtype)


def _inputs(domain: Domain, rows: Tensor, seeds: list[int] | None, room: Tensor | None) -> Tensor | Reading:
    if isinstance(domain.inputs, Tensor):
        return domain.inputs.index_select(0, rows.to(domain.inputs.device))
    return begin_reading(domain.inputs, rows.tolist(), seeds, domain.labels.device, room)


def _refuse_empty_shares(rows: list[int], ranks: Ranks) -> None:
    if min(rows) < ranks.count:
        raise InputError(
            f"batches: got {min(rows)} rows of a domain for {ranks.count} ranks, expected at least {ranks.count}; "
            "draw more rows, or train on fewer ranks"
        )
