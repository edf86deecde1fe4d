"""Inputs that are read when they are needed, such as image files, in place of a tensor that holds them all."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class LazyInputs(Protocol):
    """N inputs of one shape that are read row by row, in any thread, and finished in batches where a model computes.

    Both are pure functions: an input depends on its row and its seed alone.

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
        """Of the inputs."""
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

    def to(self, device: torch.device) -> Self:
        """The same inputs, of which a device holds what it is to hold."""
        ...

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        """What ``finish`` makes inputs of, [n, ...], on the CPU or on the device that holds it.

        Args:
            rows: which, in this order; one may come twice.
            seeds: of the augmentation of each row, as a training step draws them; None: to be evaluated.

        Raises:
            InputError: an input cannot be read; the message has its path.
        """
        ...

    def finish(
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, room: Tensor | None = None
    ) -> Tensor:
        """Inputs [n, ...] of what was read of the same rows with the same seeds, on its device.

        Args:
            read: what ``read`` returned, or several of its results in one tensor.
            rows: which.
            seeds: of each row; None: to be evaluated.
            room: [n, ...], where they are to lie; None: wherever.

        Returns:
            The inputs; ``room``, if it is given.
        """
        ...
