"""Micro-batches of a featurizer with the features, and so the penalty, of the whole batch."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fishr.errors import InputError
from fishr.tensor_trees import each_tensor, named_tensors


def accumulate(featurizer: Callable[[Any], Tensor], micro_batches: int) -> nn.Module:
    """Return a featurizer that runs one micro-batch at a time and returns the features of the whole batch.

    Losses and penalties see all samples, so that values, gradients and the one update of a moving average are those of
    the whole batch, while activations are kept of one micro-batch: the backward pass computes them again, which costs
    one more forward pass. Random layers repeat their draws then, and buffers change once a micro-batch. Batch
    normalization in train mode takes the statistics of each micro-batch, as in any gradient accumulation.

    Args:
        featurizer: inputs to features, [N, ...]; a module's parameters are those of the result.
        micro_batches: how many parts of nearly equal size a batch has; a batch of fewer samples has a part for each.

    Raises:
        InputError: fewer than 1 micro-batch.

    Example:
        >>> featurizer, inputs = nn.Linear(3, 2), torch.randn(10, 3)
        >>> torch.allclose(accumulate(featurizer, micro_batches=4)(inputs), featurizer(inputs))
        True
    """
    return _MicroBatched(featurizer, micro_batches)


class _MicroBatched(nn.Module):
    def __init__(self, featurizer: Callable[[Any], Tensor], micro_batches: int) -> None:
        super().__init__()
        if micro_batches < 1:
            raise InputError(f"micro_batches: got {micro_batches}, expected at least 1")
        self.featurizer, self.micro_batches = featurizer, micro_batches

    def forward(self, inputs: Any) -> Tensor:
        samples = max((len(tensor) for _, tensor in named_tensors(inputs)), default=0)
        count = max(1, min(self.micro_batches, samples))
        edges = [samples * i // count for i in range(count + 1)]
        parts = [each_tensor(lambda rows, at=slice(*ends): rows[at], inputs) for ends in pairwise(edges)]
        return torch.cat([self._features(part) for part in parts])

    def _features(self, part: Any) -> Tensor:
        featurizer = self.featurizer
        if not torch.is_grad_enabled():
            return featurizer(part)
        module = featurizer if isinstance(featurizer, nn.Module) else nn.Module()
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        again = False

        def run() -> Tensor:
            nonlocal again
            # A copy, because the featurizer may write into its inputs, and the second pass reads them again.
            copied = each_tensor(torch.clone, part)
            if again and buffers:
                # From the buffers as they were in the first pass; the module's own do not move twice.
                as_before = {name: buffer.clone() for name, buffer in buffers.items()}
                return torch.func.functional_call(module, as_before, (copied,))
            again = True
            return featurizer(copied)

        return checkpoint(run, use_reentrant=False)
