"""Grids of scores computed a few grid rows at a time, each kept on disk, so that a killed computation goes on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fishr.data.caches import Parts
from fishr.landscape.plane import Scores

# Scores at the points of a grid of the given values of α and β.
Sheet: TypeAlias = Callable[[Tensor, Tensor], Scores]


def evaluate_sheets(
    sheets: Sequence[Sheet], xs: Tensor, ys: Tensor, parts: Parts, rows: int = 1
) -> Iterator[tuple[int, int]]:
    """Evaluate all sheets on one grid, part by part; parts that are there already are not computed again.

    Args:
        sheets: such as one plane, several lines, or the frames of an animation.
        xs: [nx], values of α.
        ys: [ny], values of β.
        parts: where the results are kept, entered.
        rows: grid rows of a part, values of α.

    Yields:
        How many parts are done, and how many there are: before the first and after each.

    Raises:
        InputError: a part on disk is damaged or of other work.
        RunFailed: a part could not be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> def bowl(xs, ys):
        ...     return Scores((xs[:, None] ** 2 + ys**2).unsqueeze(0), torch.ones(1, len(xs), len(ys)))
        >>> xs = torch.tensor([-1.0, 0.0, 1.0])
        >>> with tempfile.TemporaryDirectory() as folder, Parts(Path(folder, "a.h5"), "fishr-surface", "k") as parts:
        ...     progress = list(evaluate_sheets([bowl], xs, xs[:2], parts))
        ...     gathered(parts, sheets=1, domains=1, xs=xs, ys=xs[:2]).losses[0, 0]
        tensor([[2., 1.],
                [1., 0.],
                [2., 1.]], dtype=torch.float64)
    """
    blocks = range(0, len(xs), rows)
    total, done = len(sheets) * len(blocks), set(parts.done)
    yield len(done), total
    for index in range(total):
        if index in done:
            continue
        sheet, start = sheets[index // len(blocks)], blocks[index % len(blocks)]
        found = sheet(xs[start : start + rows], ys)
        place = {"sheet": index // len(blocks), "row": start}
        parts.write(index, {**place, "losses": found.losses.numpy(), "accuracies": found.accuracies.numpy()})
        done.add(index)
        yield len(done), total


def gathered(parts: Parts, sheets: int, domains: int, xs: Tensor, ys: Tensor) -> Scores:
    """What the parts hold so far, NaN where nothing was evaluated yet.

    Args:
        parts: of ``evaluate_sheets``, finished or not.
        sheets: T, how many there are.
        domains: K.
        xs: [nx].
        ys: [ny].

    Returns:
        Scores of shape [T, K, nx, ny].

    Raises:
        InputError: a part is damaged or of other work.

    Example:
        >>> from pathlib import Path
        >>> nothing = Parts(Path("no-such-folder", "a.h5"), "fishr-surface", "k")
        >>> gathered(nothing, sheets=1, domains=1, xs=torch.zeros(2), ys=torch.zeros(1)).losses.flatten()
        tensor([nan, nan], dtype=torch.float64)
    """
    shape = (sheets, domains, len(xs), len(ys))
    losses, accuracies = (torch.full(shape, torch.nan, dtype=torch.float64) for _ in range(2))
    for index in parts.done:
        part: Any = parts.read(index)
        for whole, name in ((losses, "losses"), (accuracies, "accuracies")):
            block = torch.from_numpy(part[name])
            whole[part["sheet"], :, part["row"] : part["row"] + block.shape[1]] = block
    return Scores(losses, accuracies)
