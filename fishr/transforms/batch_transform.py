"""The protocol of transforms of a batch."""

from typing import Protocol

import torch

from fishr.types import DomainBatch


class BatchTransform(Protocol):
    """A function of a whole batch, before the featurizer, the loss and all penalties see it.

    Its domains keep their places, and none that has samples loses all of them. Evaluations see the data as they are.
    With several ranks, each transforms the whole batch and takes its share afterwards.

    Args:
        batch: The samples as they were drawn.
        generator: The only source of randomness, on the CPU, seeded by the step.
        outputs: C, the number of outputs of the head.

    Example:
        >>> from attrs import evolve
        >>> def noisy(batch, generator, outputs):
        ...     return evolve(batch, inputs=batch.inputs + torch.randn(batch.inputs.shape, generator=generator))
        >>> transform: BatchTransform = noisy
    """

    def __call__(self, batch: DomainBatch, generator: torch.Generator, outputs: int, /) -> DomainBatch:
        """Return the batch to train on."""
        ...
