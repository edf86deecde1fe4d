"""Directions through visited weights: principal components, a plane through three checkpoints, a chord."""

from collections.abc import Sequence

import torch
from attrs import evolve
from torch import Tensor

from fishr.errors import InputError
from fishr.landscape.directions import FLAT, Directions, Kind, orthonormal
from fishr.landscape.plane import Weights, check_alike, flattened, like


def pca_directions(checkpoints: Sequence[Weights], labels: Sequence[str]) -> Directions:
    """Return the first two principal components of a trajectory, around its last checkpoint.

    They are the first two right singular vectors of the rows θ_t − θ_T; the share of variance of each is σ²/Σσ².

    Args:
        checkpoints: θ_1 … θ_T in order, at least three.

    Returns:
        Directions of kind "pca" with the coordinates of all checkpoints. Signs are such that the first checkpoint has
        no positive coordinate.

    Raises:
        InputError: fewer than three checkpoints, of different shapes, or all on one line.

    Example:
        >>> steps = [{"w": torch.tensor(w)} for w in ([3.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0])]
        >>> found = pca_directions(steps, ("first", "second", "last"))
        >>> found.points[-1].tolist(), round(sum(found.explained), 6)
        ([0.0, 0.0], 1.0)

    Source:
        Li et al. 2018 (arXiv 1712.09913), section 7.2.
    """
    if len(checkpoints) < 3:
        raise InputError(
            f"pca: got {len(checkpoints)} checkpoints, expected at least 3; train with --keep-checkpoints and a "
            "smaller checkpoint_every"
        )
    steps = _steps(checkpoints)
    _, singular, right = torch.linalg.svd(steps, full_matrices=False)
    if len(right) < 2 or not singular[1] > FLAT * singular[0]:
        raise InputError("pca: got checkpoints that lie on one line, expected a plane; use directions of another kind")
    axes = right[:2]
    axes = axes * torch.where(axes @ steps[0] > 0, -1.0, 1.0).unsqueeze(1)
    shares = tuple((singular.square() / singular.square().sum())[:2].tolist())
    names = tuple(f"component {i + 1} ({share:.1%} of variance)" for i, share in enumerate(shares))
    return evolve(_plane("pca", axes, names, steps, checkpoints[-1], labels), explained=shares)


def checkpoint_directions(checkpoints: Sequence[Weights], labels: Sequence[str]) -> Directions:
    """Return an orthonormal basis of the plane through three checkpoints, around the last.

    The first axis points from the last checkpoint to the first; the second checkpoint has a positive coordinate on the
    second axis.

    Raises:
        InputError: not three, of different shapes, or on one line.

    Example:
        >>> corners = [{"w": torch.tensor(w)} for w in ([3.0, 0.0], [1.0, 2.0], [0.0, 0.0])]
        >>> checkpoint_directions(corners, ("a", "b", "c")).points
        tensor([[3., 0.],
                [1., 2.],
                [0., 0.]], dtype=torch.float64)

    Source:
        Garipov et al. 2018 (arXiv 1802.10026), appendix.
    """
    if len(checkpoints) != 3:
        raise InputError(f"checkpoints: got {len(checkpoints)} checkpoints, expected 3 to lay a plane through")
    steps = _steps(checkpoints)
    axes = orthonormal(steps, "checkpoints: got three on one line, expected a plane; choose others")
    names = (f"towards {labels[0]}", f"towards {labels[1]}, orthogonal part")
    return _plane("checkpoints", axes, names, steps, checkpoints[-1], labels)


def chord(start: Weights, end: Weights, labels: tuple[str, str]) -> Directions:
    """Return the line between two models' weights: α = 0 is the first, α = 1 the second.

    Raises:
        InputError: the two differ in names or shapes, or are equal.

    Example:
        >>> chord({"w": torch.zeros(2)}, {"w": torch.ones(2)}, ("one", "other")).points.flatten().tolist()
        [0.0, 1.0]

    Source:
        Goodfellow et al. 2015 (arXiv 1412.6544).
    """
    check_alike(end, start)
    step = {name: value - start[name].to(value) for name, value in end.items()}
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    return Directions("interpolation", (step,), (f"{labels[0]} to {labels[1]}",), points=ends, labels=labels)


def _plane(
    kind: Kind, axes: Tensor, names: tuple[str, ...], steps: Tensor, last: Weights, labels: Sequence[str]
) -> Directions:
    """Return directions along axes [2, P] around the last checkpoint, with the coordinates of all."""
    points = torch.cat([steps @ axes.T, steps.new_zeros(1, 2)]).cpu()
    return Directions(kind, tuple(like(axis, last) for axis in axes), names, points=points, labels=tuple(labels))


def _steps(checkpoints: Sequence[Weights]) -> Tensor:
    """Return the rows θ_t − θ_T [T − 1, P]."""
    for checkpoint in checkpoints:
        check_alike(checkpoint, checkpoints[-1])
    rows = torch.stack([flattened(checkpoint) for checkpoint in checkpoints])
    return rows[:-1] - rows[-1]
