"""Checks of inputs and labels, shared by arrays, domains and files."""

import torch
from torch import Tensor

from fishr.errors import InputError


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
