"""Which rows one training step sees: all of them, or some of each domain."""

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain
from fishr.data.reading import Reading, begin_reading
from fishr.errors import InputError
from fishr.types import DomainBatch


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

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator) -> DomainBatch:
        """All rows, ordered by domain; the generator is not advanced.

        Raises:
            InputError: inputs that are read from files, which no batch can hold all of.
        """
        held = [domain.inputs for domain in domains if isinstance(domain.inputs, Tensor)]
        if len(held) < len(domains):
            raise InputError("batches: got FullBatch of images that are read from files, expected Minibatch")
        return DomainBatch(
            inputs=torch.cat(held),
            labels=torch.cat([domain.labels for domain in domains]),
            sizes=tuple(len(domain.labels) for domain in domains),
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

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator) -> DomainBatch:
        """K times ``size`` rows, ordered by domain, on the domains' device; the generator advances."""
        return self.begin(domains, generator).result()

    def begin(self, domains: tuple[Domain, ...], generator: torch.Generator) -> "Drawn":
        """The same batch while its files are being read; the generator advances at once."""
        rows = [self._rows(len(domain.labels), generator) for domain in domains]
        drawn = list(zip(domains, rows, strict=True))
        return Drawn(
            inputs=tuple(_inputs(domain, chosen, generator) for domain, chosen in drawn),
            labels=torch.cat([d.labels.index_select(0, chosen.to(d.labels.device)) for d, chosen in drawn]),
            sizes=(self.size,) * len(domains),
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

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> Minibatch(size=2).begin((domain,), torch.Generator()).result().inputs.shape
        torch.Size([2, 2])
    """

    inputs: tuple[Tensor | Reading, ...]
    labels: Tensor
    sizes: tuple[int, ...]

    def result(self) -> DomainBatch:
        """The batch, once all of it is read.

        Raises:
            InputError: a file cannot be read.
        """
        parts = [part if isinstance(part, Tensor) else part.result() for part in self.inputs]
        return DomainBatch(torch.cat(parts).to(self.labels.device), self.labels, self.sizes)


def _inputs(domain: Domain, rows: Tensor, generator: torch.Generator) -> Tensor | Reading:
    if isinstance(domain.inputs, Tensor):
        return domain.inputs.index_select(0, rows.to(domain.inputs.device))
    # Drawn here, so that an image's augmentation does not depend on which thread reads it, or when.
    seeds = torch.randint(2**62, (len(rows),), generator=generator).tolist()
    return begin_reading(domain.inputs, rows.tolist(), seeds)
