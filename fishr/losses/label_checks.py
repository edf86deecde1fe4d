"""Checks of labels and weights that several losses share."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fishr.errors import InputError


def can_be_read(labels: Tensor) -> bool:
    """Return whether reading labels waits for no device and breaks no compiled graph."""
    return labels.device.type == "cpu" and not torch.compiler.is_compiling()


def bounds(labels: Tensor) -> tuple[float, float]:
    """Return the smallest and largest value, also under torch.func's transforms; 0 and 0 without labels."""
    values = torch.func.debug_unwrap(labels)
    if not values.numel():
        return 0, 0
    lowest, highest = values.aminmax()
    return lowest.item(), highest.item()


def as_columns(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Return labels [N] or [N, C] as [N, C] of the logits' type; refuse another number than one an output."""
    columns = labels.unsqueeze(1) if labels.ndim == 1 else labels
    if logits.ndim != 2 or columns.shape != logits.shape:
        raise InputError(
            f"{name}: got labels of shape {tuple(labels.shape)} for logits of shape {tuple(logits.shape)}, expected "
            "one label per output"
        )
    return columns.to(logits.dtype)


def check_columns(name: str, labels: Tensor, outputs: int) -> None:
    """Refuse labels that are neither [N] for one output nor [N, C]."""
    if labels.ndim not in (1, 2) or (1 if labels.ndim == 1 else labels.shape[1]) != outputs:
        raise InputError(
            f"{name}: got labels of shape {tuple(labels.shape)} for {outputs} outputs, expected one label per output"
        )


def weights(values: Iterable[Any]) -> tuple[float, ...]:
    """Return weights as a tuple of numbers."""
    return tuple(map(float, values))


def check_weights(record: Any, attribute: Any, values: tuple[float, ...]) -> None:
    """Validate a field of weights: finite, none below 0, and one above."""
    if not all(0 <= value < float("inf") for value in values) or not any(values):
        raise InputError(f"{attribute.name}: got {values}, expected a number of at least 0 for each output, not all 0")


def check_number_of_weights(name: str, values: tuple[float, ...] | None, outputs: int) -> None:
    """Refuse another number of weights than outputs."""
    if values is not None and len(values) != outputs:
        raise InputError(f"{name}: got {len(values)} numbers for {outputs} outputs, expected one for each output")
