"""Inputs that are read when they are needed, such as image files, in place of a tensor that holds them all."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class LazyInputs(Protocol):
    """N inputs of one shape that are read row by row; reading is a pure function and may happen in any thread.

    Example:
        >>> isinstance(torch.zeros(3, 2), LazyInputs)
        False
    """

    @property
    def shape(self) -> torch.Size:
        """[N, ...] of all inputs."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Of what ``read`` returns."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def select(self, rows: Sequence[int]) -> Self:
        """The inputs of some rows, still unread."""
        ...

    def plain(self) -> Self:
        """The same inputs, never augmented."""
        ...

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        """Inputs [n, ...] on the CPU.

        Args:
            rows: which, in this order; one may come twice.
            seeds: of the augmentation of each row, as a training step draws them; None: to be evaluated.

        Raises:
            InputError: an input cannot be read; the message has its path.
        """
        ...
