"""Coordinates of a grid: evenly spaced, with the origin always included."""

from math import isfinite

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.landscape.directions import Directions

# Margin of a plane beyond the outermost known points, as a share of their extent.
_MARGIN = 0.25


def axis(low: float, high: float, points: int) -> Tensor:
    """Return evenly spaced values that cover low … high and contain 0 exactly.

    With an even number of points the range grows by up to a step on one side, because 0 cannot be in the middle.

    Args:
        low: at most 0.
        high: at least 0.
        points: number of values; a single one is 0.

    Returns:
        [points], float64, ascending.

    Raises:
        InputError: no point, or a range that is empty or does not contain 0.

    Example:
        >>> axis(-1.0, 1.0, 5).tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
        >>> axis(-1.0, 2.0, 1).tolist()
        [0.0]
    """
    if points < 1:
        raise InputError(f"grid: got {points} points on an axis, expected at least 1")
    if not (low <= 0 <= high and isfinite(high - low)) or (low == high and points > 1):
        raise InputError(f"grid: got a range from {low:g} to {high:g}, expected one that contains 0 and is not empty")
    if points == 1:
        return torch.zeros(1, dtype=torch.float64)
    before = round(-low / (high - low) * (points - 1))
    # Each end that is not the origin keeps a point.
    before = min(max(before, int(low < 0)), points - 1 - int(high > 0 and points > 2))
    after = points - 1 - before
    step = max(-low / before if before else 0.0, high / after if after else 0.0)
    return torch.arange(-before, after + 1, dtype=torch.float64) * step


def grid_axes(directions: Directions, points: tuple[int, ...], span: float = 1.0) -> tuple[Tensor, ...]:
    """Return the coordinates of a landscape's grid, one axis for each dimension.

    Random directions, eigenvectors and gradients reach from −span to span. A plane through checkpoints extends beyond
    them by a quarter of their extent, times span. An interpolation goes from 0 to 1.

    Args:
        points: of each axis; lines and interpolations have one axis.
        span: reach of the axes.

    Returns:
        [nx] or [nx] and [ny], float64.

    Raises:
        InputError: the number of axes does not fit the directions, or the span is not positive.

    Example:
        >>> lines = Directions("line", ({"w": torch.ones(2)},), ("random",), seed=0)
        >>> grid_axes(lines, (3,), span=2.0)
        (tensor([-2.,  0.,  2.], dtype=torch.float64),)
    """
    dimensions = 1 if directions.kind in ("line", "interpolation") else 2
    if len(points) != dimensions:
        got, numbers = "x".join(map(str, points)), "one number" if dimensions == 1 else "two numbers"
        raise InputError(f"grid: got {got}, expected {numbers} of points for {directions.kind} directions")
    if not (span > 0 and isfinite(span)):
        raise InputError(f"span: got {span}, expected a positive number")
    if directions.kind == "interpolation":
        if points[0] < 2:
            raise InputError("grid: got 1 point, expected at least 2 for an interpolation: its two ends")
        return (torch.linspace(0, 1, points[0], dtype=torch.float64),)
    if directions.kind not in ("pca", "checkpoints"):
        return tuple(axis(-span, span, n) for n in points)
    lowest, highest = directions.points.amin(0), directions.points.amax(0)
    margin = _MARGIN * span * float((highest - lowest).amax())
    ends = zip(lowest.clamp(max=0).tolist(), highest.clamp(min=0).tolist(), points, strict=True)
    return tuple(axis(low - margin, high + margin, n) for low, high, n in ends)
