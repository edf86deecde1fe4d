"""Values that inputs and labels can have, checked alike in arrays, domains and files."""

import torch
from torch import Tensor

from fishr.errors import InputError


def check_finite(where: str, what: str, values: Tensor, remedy: str, first: int = 0) -> None:
    """Refuse a value that is NaN or infinite, and name its row.

    Args:
        where: what holds the values, for the message.
        what: one of them, such as "an input".
        values: [n, ...] of any float type.
        remedy: what the message says to do.
        first: number of the first row.

    Raises:
        InputError: one is not finite.

    Example:
        >>> check_finite("a.npz", "an input", torch.tensor([1.0, torch.inf]), "drop such rows")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: a.npz: an input of row 1 is NaN, infinite or beyond float32, expected finite numbers; \
drop such rows
    """
    # A sum is finite only if each value is; an overflow costs a second look.
    if torch.isfinite(values.sum()):
        return
    wrong = ~torch.isfinite(values)
    if wrong.any():
        row = first + (int(wrong.nonzero()[0, 0]) if wrong.ndim else 0)
        raise InputError(
            f"{where}: {what} of row {row} is NaN, infinite or beyond float32, expected finite numbers; {remedy}"
        )


def check_classes(where: str, labels: Tensor, classes: int, remedy: str | None = None) -> None:
    """Refuse a label that is no class.

    Args:
        where: what holds the labels, for the message.
        labels: [n] int64.
        classes: C; labels are from 0 to C - 1.
        remedy: what the message says to do; None: what is likely.

    Raises:
        InputError: one is outside.

    Example:
        >>> check_classes("domain 'photo'", torch.tensor([1, 2]), classes=2)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: domain 'photo': got label 2, expected whole numbers from 0 to 1, for 2 classes; if \
labels start at 1, subtract 1
    """
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
