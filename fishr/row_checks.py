"""Checks of inputs, labels and domain sizes: that they belong together, and that their values can be used."""

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.tensor_trees import leaves


def whole_numbers(values: Iterable[int]) -> tuple[int, ...]:
    """Return domain sizes as a tuple of whole numbers."""
    try:
        return tuple(value if type(value) is int else index(value) for value in values)
    except TypeError as error:
        got = " ".join(repr(values).split())
        raise InputError(f"sizes: got {got}, expected a whole number for each domain") from error


def check_sizes(sizes: Iterable[int], rows: int, least: int = 1) -> tuple[int, ...]:
    """Return domain sizes as a tuple if they split ``rows`` rows into domains of at least so many samples."""
    sizes = whole_numbers(sizes)
    if min(sizes, default=-1) < least or max(sizes) < 1:
        each = "at least one sample in each domain" if least else "none below 0, and at least one sample"
        raise InputError(f"sizes: got {sizes}, expected {each}")
    if sum(sizes) != rows:
        raise InputError(
            f"sizes: got {sizes}, which sum to {sum(sizes)}, expected the {rows} rows of the batch; count the samples "
            "of each domain, or give the domain of each sample to DomainBatch.of"
        )
    return sizes


def check_batch(inputs: Tensor, labels: Tensor, sizes: Iterable[int]) -> tuple[int, ...]:
    """Return domain sizes as a tuple if they fit features and labels, tensors with as many rows."""
    check_rows(inputs, labels)
    return check_sizes(sizes, len(inputs))


def check_rows(inputs: Tensor, labels: Tensor, name: str = "features") -> None:
    """Refuse inputs and labels that are not tensors with as many rows."""
    _check_tensor(name, inputs)
    _check_tensor("labels", labels)
    if len(labels) != len(inputs):
        raise InputError(
            f"labels: got {len(labels)} rows, expected {len(inputs)} as in the {name}; give those of the same samples"
        )


def check_inputs(inputs: Any, labels: Tensor) -> None:
    """Refuse inputs that are neither a tensor nor a tree of tensors with as many rows as the labels."""
    found = list(leaves(inputs))
    if not found:
        raise InputError("inputs: got no tensor, expected at least one with a row for each sample")
    for path, leaf in found:
        if path and not isinstance(leaf, Tensor):
            raise InputError(
                f"inputs: got {kind(inputs)}, expected a torch.Tensor with a row for each sample, or dicts, tuples and "
                f"lists of such; entry {path} is {kind(leaf)}"
            )
        check_rows(leaf, labels, f"inputs {path}".rstrip())


def check_domains(domains: Tensor | Sequence[int], rows: int, number: int | None) -> Tensor:
    """Return the domain of each of the rows as a tensor [N] if they are whole numbers from 0 to ``number`` - 1."""
    try:
        ids = torch.as_tensor(domains)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"domains: got {kind(domains)} that is no tensor of numbers, expected the whole number of each sample's "
            "domain; number the domains from 0"
        ) from error
    if ids.shape != (rows,) or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise InputError(
            f"domains: got shape {tuple(ids.shape)} and type {ids.dtype}, expected ({rows},) whole numbers, the domain "
            "of each sample; number the domains from 0"
        )
    lowest, highest = map(int, ids.aminmax()) if rows else (0, 0)
    if lowest < 0 or (number is not None and highest >= number):
        known = "whole numbers from 0" if number is None else f"0 to {number - 1} for number={number}"
        raise InputError(f"domains: got {lowest} to {highest}, expected {known}; number the domains from 0")
    return ids


def check_finite(where: str, what: str, values: Tensor, remedy: str, first: int = 0) -> None:
    """Refuse values [n, ...] with a NaN or an infinity; ``what`` names one value, ``first`` is the number of row 0."""
    # A sum is finite only if each value is; after an overflow, all values are checked.
    if torch.isfinite(values.sum()):
        return
    wrong = ~torch.isfinite(values)
    if wrong.any():
        row = first + (int(wrong.nonzero()[0, 0]) if wrong.ndim else 0)
        raise InputError(
            f"{where}: {what} of row {row} is NaN, infinite or beyond float32, expected finite numbers; {remedy}"
        )


def check_classes(where: str, labels: Tensor, classes: int, remedy: str | None = None) -> None:
    """Refuse a label [n] int64 outside 0 to C - 1, with a remedy; None: the likely one."""
    if not len(labels):
        return
    lowest, highest = (int(bound) for bound in torch.aminmax(labels))
    if lowest < 0 or highest >= classes:
        wrong, likely = highest, "if labels start at 1, subtract 1"
        if lowest < 0:
            wrong, likely = lowest, "leave out the rows that have no class"
        raise InputError(
            f"{where}: got label {wrong}, expected whole numbers from 0 to {classes - 1}, for {classes} classes; "
            f"{remedy or likely}"
        )


def _check_tensor(name: str, rows: Any) -> None:
    if not isinstance(rows, Tensor):
        raise InputError(
            f"{name}: got {kind(rows)}, expected a torch.Tensor with a row for each sample; use torch.as_tensor"
        )
    if not rows.ndim:
        raise InputError(f"{name}: got a single number, expected a row for each sample")


def kind(value: object) -> str:
    """Return the type of a value, as an error message says it."""
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"
