"""Which rows one training step sees: all of them, or some of each domain."""

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain
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
        """All rows, ordered by domain; the generator is not advanced."""
        return DomainBatch(
            inputs=torch.cat([domain.inputs for domain in domains]),
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

    Raises:
        InputError: ``size`` is below 1.

    Example:
        >>> domain = Domain("only", torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        >>> Minibatch(size=2).draw((domain, domain), torch.Generator()).sizes
        (2, 2)
    """

    size: int

    def __attrs_post_init__(self) -> None:
        """Refuse an empty batch."""
        if self.size < 1:
            raise InputError(f"size: got {self.size}, expected at least 1 row of each domain")

    def draw(self, domains: tuple[Domain, ...], generator: torch.Generator) -> DomainBatch:
        """K times ``size`` rows, ordered by domain, on the domains' device; the generator advances."""
        rows = [self._rows(len(domain.labels), generator) for domain in domains]
        drawn = [(domain, chosen.to(domain.inputs.device)) for domain, chosen in zip(domains, rows, strict=True)]
        return DomainBatch(
            inputs=torch.cat([domain.inputs.index_select(0, chosen) for domain, chosen in drawn]),
            labels=torch.cat([domain.labels.index_select(0, chosen) for domain, chosen in drawn]),
            sizes=(self.size,) * len(domains),
        )

    def _rows(self, count: int, generator: torch.Generator) -> Tensor:
        device = generator.device
        if count < self.size:
            return torch.randint(count, (self.size,), generator=generator, device=device)
        return torch.randperm(count, generator=generator, device=device)[: self.size]
