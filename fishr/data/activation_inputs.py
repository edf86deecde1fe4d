"""Outputs of a network's layer as inputs of the layers above, read when a batch needs them."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from attrs import evolve, frozen
from numpy.typing import NDArray
from torch import Tensor


class Rows(Protocol):
    """Rows that can be read one by one in any thread, such as those of an activation cache."""

    def read(self, index: int) -> NDArray[np.floating]: ...


@frozen(eq=False)
class ActivationInputs:
    """See ``fishr.data.domains.LazyInputs``; float32, whatever the type that is stored."""

    stored: Rows
    sample: tuple[int, ...]  # shape of an input
    rows: Sequence[int]  # of the stored ones
    below_sha256: str  # of the weights that they were computed with

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self.sample))

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> "ActivationInputs":
        return evolve(self, rows=tuple(self.rows[row] for row in rows))

    def plain(self) -> "ActivationInputs":
        return self

    def to(self, device: torch.device) -> "ActivationInputs":
        return self

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        found = [self.stored.read(self.rows[row]) for row in rows]
        return torch.from_numpy(np.stack(found).astype(np.float32, copy=False))

    def finish(
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, out: Tensor | None = None
    ) -> Tensor:
        return read if out is None else out.copy_(read)
