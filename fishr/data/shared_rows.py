"""Inputs that are rows of one table, which several domains and several runs share without copies of it."""

from collections.abc import Sequence

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.data.domains import Domain
from fishr.data.environments import Environments


@frozen(eq=False)
class SharedRows:
    """See ``fishr.data.domains.LazyInputs``."""

    table: Tensor  # [M, ...]
    rows: Tensor  # [N] int64

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.table.shape[1:]))

    @property
    def dtype(self) -> torch.dtype:
        return self.table.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> "SharedRows":
        return evolve(self, rows=self.rows[torch.as_tensor(rows)])

    def plain(self) -> "SharedRows":
        return self

    def to(self, device: torch.device) -> "SharedRows":
        return evolve(self, table=self.table.to(device), rows=self.rows.to(device))

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        return self.table[self.rows[torch.as_tensor(rows)]]

    def finish(
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, out: Tensor | None = None
    ) -> Tensor:
        return read if out is None else out.copy_(read)


def in_one_table(environments: Environments, device: torch.device) -> Environments:
    """Return environments whose inputs are rows of one table on a device."""
    table = torch.cat([domain.inputs for domain in environments.domains if isinstance(domain.inputs, Tensor)])
    table, start, shared = table.to(device), 0, list[Domain]()
    for domain in environments.domains:
        stop = start + len(domain.labels)
        shared.append(evolve(domain, inputs=SharedRows(table, torch.arange(start, stop))))
        start = stop
    return evolve(environments, domains=tuple(shared))


def rows_of(domain: Domain) -> SharedRows:
    """Return the inputs of a domain that are rows of a shared table."""
    if not isinstance(domain.inputs, SharedRows):
        raise TypeError(f"domain {domain.name!r}: its inputs are no rows of a shared table")
    return domain.inputs
