"""Losses of a linear head as functions of margins, which are affine in the coordinates of a plane of weights."""

import torch
from attrs import frozen
from torch import Tensor

from fishr.losses import BinaryCrossEntropy, CrossEntropy, Loss


@frozen(eq=False)
class Margins:
    """R losses ℓ_r = log(1 + Σ_m exp t_rm) with margins t = base + α·first + β·second.

    For cross-entropy t_nc = f_nc − f_ny, with −∞ in the label's own column; for the logistic loss t = f where the
    label is 0 and −f where it is 1, one row for each output. A row is a hit, its prediction right, where all its
    margins are negative, or zero where a tie is won.

    Args:
        base: [R, M], float64.
        first: [R, M], float64, by how much the margins grow with α.
        second: [R, M], float64, and with β.
        wins_ties: [R, M], whether a margin of exactly 0 still leaves the prediction right.

    Example:
        >>> logits = torch.tensor([[[0.0, 2.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
        >>> margins_of(CrossEntropy(), logits, torch.tensor([1])).base
        tensor([[-2., -inf]], dtype=torch.float64)
    """

    base: Tensor
    first: Tensor
    second: Tensor
    wins_ties: Tensor


def margins_of(loss: Loss, logits: Tensor, labels: Tensor) -> Margins | None:
    """The margins of a loss that has them.

    Args:
        loss: per-sample.
        logits: [3, N, C]: at the origin of the plane, and by how much they grow with α and with β.
        labels: what the loss reads.

    Returns:
        The margins; None for any loss but these two themselves, and for soft labels.

    Example:
        >>> margins_of(BinaryCrossEntropy(), torch.ones(3, 2, 1), torch.tensor([0, 1])).first
        tensor([[ 1.],
                [-1.]], dtype=torch.float64)
        >>> margins_of(lambda logits, labels: logits[:, 0], torch.ones(3, 2, 1), torch.tensor([0, 1]))
    """
    # A subclass may compute something else.
    if type(loss) is CrossEntropy:
        # In float64 from here on: margins of two large logits are small.
        logits = logits.double()
        columns = labels.unsqueeze(1)
        base, first, second = logits - logits.gather(2, columns.expand(3, -1, 1))
        # Of several largest logits, the first is predicted.
        wins_ties = torch.arange(logits.shape[2], device=labels.device) > columns
        return Margins(base.scatter(1, columns, -torch.inf), first, second, wins_ties)
    if type(loss) is BinaryCrossEntropy and bool(((labels == 0) | (labels == 1)).all()):
        targets = labels.reshape(-1, 1)
        base, first, second = logits.double().flatten(1).unsqueeze(2) * (1 - 2 * targets)
        return Margins(base, first, second, targets == 0)
    return None
