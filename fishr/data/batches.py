"""Batches of a training step: the protocol, all samples, or some of each domain."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import whole
from fishr.data.domains import Domain
from fishr.data.reading import Reading, begin_reading
from fishr.errors import InputError
from fishr.ranks import ALONE, Ranks
from fishr.seeding import named_generator
from fishr.types import DomainBatch


class Batches(Protocol):
    """Protocol of what draws the batch of each step from the training domains.

    A class whose draws are the same at every step has ``fixed = True``: the batch is drawn once and kept. One that can
    start to read files before the batch is needed has ``begin``, with the arguments of ``draw``, which returns an
    object whose ``result()`` is the batch.
    """

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks, /) -> DomainBatch:
        """Return samples of every domain, ordered by domain; of several ranks each returns its share.

        Args:
            generator: The only source of randomness, in the same state on all ranks.
            ranks: The processes that share the batch.
        """
        ...


@frozen
class FunctionBatches:
    """Batches of a plain function ``f(domains, generator) -> DomainBatch``.

    Every rank calls the function, and takes its share of each domain's samples.

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
        return share_of(self.function(domains, generator), ranks)


@frozen
class FullBatch:
    """All samples of every domain at every step; nothing is random, so a loop draws the batch once and keeps it.

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> FullBatch().draw((domain, domain), torch.Generator()).sizes
        (3, 3)
    """

    fixed: ClassVar[bool] = True

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks = ALONE) -> DomainBatch:
        """Return all samples, or this rank's share of each domain's, ordered by domain; the generator is not used.

        Raises:
            InputError: Inputs are read from files, which no batch can hold all of, or a domain has fewer samples than
                there are ranks.
        """
        inputs = [domain.inputs for domain in domains if isinstance(domain.inputs, Tensor)]
        if len(inputs) < len(domains):
            raise InputError("batches: got FullBatch of images that are read from files, expected Minibatch")
        return _share(inputs, [domain.labels for domain in domains], ranks=ranks)


@frozen
class Minibatch:
    """The same number of samples of each domain, drawn again at every step.

    The samples of a domain with at least ``size`` of them differ; a smaller domain gives ``size`` draws with
    replacement.

    Args:
        size: Samples of each domain, at least 1.
        replace: Whether to draw with replacement always, as DomainBed does.

    Raises:
        InputError: ``size`` is below 1.

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> Minibatch(size=2).draw((domain, domain), torch.Generator()).sizes
        (2, 2)
    """

    size: int = field(validator=whole(1))
    replace: bool = False

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks = ALONE) -> DomainBatch:
        """Return ``size`` samples of each of K domains, ordered by domain, on the domains' device.

        The generator advances. Each of several ranks makes all draws and keeps its share of each domain's samples.

        Raises:
            InputError: There are more ranks than samples of a domain, or a file cannot be read.
        """
        return self.begin(domains, generator, ranks).result()

    def begin(self, domains: tuple[Domain, ...], generator: torch.Generator, ranks: Ranks = ALONE) -> "Drawn":
        """Start to read the batch's files; the generator advances at once."""
        _refuse_empty_shares([self.size], ranks)
        drawn = self.indices([len(domain.labels) for domain in domains], generator)
        # Drawn ahead, so that an image's augmentation does not depend on which thread or rank reads it, or when; and
        # from a stream of their own, so that the draws of samples are the same on features of the images.
        images = None if all(isinstance(d.inputs, Tensor) for d in domains) else _of_images(generator)
        seeds = [None if images is None or isinstance(d.inputs, Tensor) else _seeds(self.size, images) for d in domains]
        shares = [ranks.share(indices) for indices in drawn]
        sizes = tuple(map(len, shares))
        # One copy to the device, which waits for none of its work.
        device = domains[0].labels.device
        rows = torch.cat(shares).to(device, non_blocking=device.type == "cuda").split(sizes)
        # One buffer if all inputs are read from files and stay on the CPU.
        first, out = domains[0].inputs, None
        if all(not isinstance(d.inputs, Tensor) and device.type == "cpu" for d in domains):
            out = torch.empty(sum(sizes), *first.shape[1:], dtype=first.dtype)
        outs = (None,) * len(domains) if out is None else out.split(sizes)
        seeds = [own and ranks.share(own) for own in seeds]
        return Drawn(
            inputs=tuple(map(_inputs, domains, rows, shares, seeds, outs)),
            labels=torch.cat([domain.labels[own] for domain, own in zip(domains, rows, strict=True)]),
            sizes=sizes,
            out=out,
        )

    def indices(self, counts: Sequence[int], generator: torch.Generator) -> list[Tensor]:
        """Return the samples that a batch takes of domains of so many, [size] each; the generator advances."""

        def drawn(count: int) -> Tensor:
            device = generator.device
            if self.replace or count < self.size:
                return torch.randint(count, (self.size,), generator=generator, device=device)
            return torch.randperm(count, generator=generator, device=device)[: self.size]

        return list(map(drawn, counts))


@frozen(eq=False)
class Drawn:
    """A batch that may still be read from files; ``out`` is the buffer of all inputs, if they share one."""

    inputs: tuple[Tensor | Reading, ...]
    labels: Tensor
    sizes: tuple[int, ...]
    out: Tensor | None = None

    def result(self) -> DomainBatch:
        """Return the batch, once all of it is read."""
        parts = [part if isinstance(part, Tensor) else part.result() for part in self.inputs]
        inputs = torch.cat(parts).to(self.labels.device) if self.out is None else self.out
        return DomainBatch(inputs, self.labels, self.sizes)


def share_of(batch: DomainBatch, ranks: Ranks) -> DomainBatch:
    """Return a rank's share of the samples of each domain of a whole batch."""
    if ranks.alone:
        return batch
    return _share(*(whole.split(list(batch.sizes)) for whole in (batch.inputs, batch.labels)), ranks=ranks)


def _share(inputs: Sequence[Tensor], labels: Sequence[Tensor], ranks: Ranks) -> DomainBatch:
    """Return this rank's share of the samples of each domain."""
    _refuse_empty_shares(list(map(len, labels)), ranks)
    own = list(map(ranks.share, labels))
    return DomainBatch(torch.cat(list(map(ranks.share, inputs))), torch.cat(own), tuple(map(len, own)))


def _of_images(generator: torch.Generator) -> torch.Generator:
    """Return the generator of the seeds of a batch's images; the given one does not advance."""
    return named_generator(int(torch.randint(2**62, (), generator=generator.clone_state())), "images")


def _seeds(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(2**62, (count,), generator=generator).tolist()


def _inputs(
    domain: Domain, rows: Tensor, indices: Tensor, seeds: list[int] | None, out: Tensor | None
) -> Tensor | Reading:
    """Return the inputs of indices, which ``rows`` are on the device of the domain."""
    if isinstance(domain.inputs, Tensor):
        return domain.inputs.index_select(0, rows)
    return begin_reading(domain.inputs, indices.tolist(), seeds, domain.labels.device, out)


def _refuse_empty_shares(samples: list[int], ranks: Ranks) -> None:
    if min(samples) < ranks.count:
        raise InputError(
            f"batches: got {min(samples)} samples of a domain for {ranks.count} ranks, expected at least "
            f"{ranks.count}; draw more samples, or train on fewer ranks"
        )
