"""Featurizers whose features of a sample depend on the other samples of its domain in the batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fishr.errors import InputError

Sizes = tuple[int, ...]


def mixes_samples(featurizer: Callable[..., Tensor]) -> bool:
    # The second is its earlier name.
    return getattr(featurizer, "mixes_samples", False) or getattr(featurizer, "mixes_rows", False)


def features_of(featurizer: Callable[..., Tensor], inputs: Any, sizes: Sizes) -> Tensor:
    """Return features of a batch in training; one that mixes samples gets their number in each domain."""
    return featurizer(inputs, sizes) if mixes_samples(featurizer) else featurizer(inputs)


def refuse_mixed_samples(featurizer: Callable[..., Tensor], where: str, remedy: str) -> None:
    """Refuse a featurizer that mixes samples where each is to have features of its own."""
    if mixes_samples(featurizer):
        name = type(featurizer).__name__.strip("_")
        raise InputError(
            f"{where}: got a featurizer ({name}) whose features of a sample depend on the others of its batch, "
            f"expected one that takes each sample alone; {remedy}"
        )


def means_of_own(rows: Tensor, sizes: Sizes) -> Tensor:
    """Return, in the place of each row, the mean of its domain's, [N, ...]."""
    parts = [part for part in rows.split(list(sizes)) if len(part)]
    return torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in parts])
