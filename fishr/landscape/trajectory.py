"""Directions from weights that were visited: principal components of checkpoints, the plane through three, a chord."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.landscape.directions import Directions, Kind
from fishr.landscape.weights import Weights, check_alike, difference, flattened, like

# Below this share of the first axis' length the second is rounding.
_FLAT = 1e-6


def pca_directions(checkpoints: Sequence[Weights], labels: Sequence[str]) -> Directions:
    """The two orthonormal directions that hold most of a trajectory, around its last checkpoint.

    With rows θ_t − θ_T, the first two right singular vectors; the share of variance of each is σ²/Σσ².

    Args:
        checkpoints: θ_1 … θ_T in their order, at least three.
        labels: what each is.

    Returns:
        Directions of kind "pca" with the coordinates of all checkpoints, lengths in parameters; signs are such that
        the first checkpoint has no positive coordinate.

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
    for checkpoint in checkpoints:
        check_alike(checkpoint, checkpoints[-1])
    last = flattened(checkpoints[-1])
    steps = torch.stack([flattened(checkpoint) - last for checkpoint in checkpoints[:-1]])
    _, singular, right = torch.linalg.svd(steps, full_matrices=False)
    if len(right) < 2 or not singular[1] > _FLAT * singular[0]:
        raise InputError("pca: got checkpoints that lie on one line, expected a plane; use directions of another kind")
    axes = right[:2]
    axes = axes * torch.where(axes @ steps[0] > 0, -1.0, 1.0).unsqueeze(1)
    shares = (singular.square() / singular.square().sum())[:2].tolist()
    names = tuple(f"component {i + 1} ({share:.1%} of variance)" for i, share in enumerate(shares))
    points = torch.cat([steps @ axes.T, steps.new_zeros(1, 2)])
    return _directions("pca", axes, checkpoints[-1], names, points, labels, explained=tuple(shares))


def checkpoint_directions(checkpoints: Sequence[Weights], labels: Sequence[str]) -> Directions:
    """The plane through three checkpoints, around the last: orthonormal axes, lengths in parameters.

    The first axis points from the last checkpoint to the first; the second lies on the side of the second one.

    Args:
        checkpoints: three, of the same names and shapes.
        labels: what each is.

    Returns:
        Directions of kind "checkpoints" with the three coordinates.

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
    for checkpoint in checkpoints:
        check_alike(checkpoint, checkpoints[-1])
    last = flattened(checkpoints[-1])
    steps = torch.stack([flattened(checkpoint) - last for checkpoint in checkpoints[:2]])
    axes = orthonormal(steps, "checkpoints: got three on one line, expected a plane; choose others")
    names = (f"towards {labels[0]}", f"towards {labels[1]}, orthogonal part")
    points = torch.cat([steps @ axes.T, steps.new_zeros(1, 2)])
    return _directions("checkpoints", axes, checkpoints[-1], names, points, labels)


def chord(start: Weights, end: Weights, labels: tuple[str, str]) -> Directions:
    """The line from one model's weights to another's: α = 0 is the first, α = 1 the second.

    Args:
        start: θ_A.
        end: θ_B, of the same names and shapes.
        labels: what the two are.

    Returns:
        Directions of kind "interpolation".

    Raises:
        InputError: the two differ in names or shapes, or not at all.

    Example:
        >>> chord({"w": torch.zeros(2)}, {"w": torch.ones(2)}, ("one", "other")).points.flatten().tolist()
        [0.0, 1.0]

    Source:
        Goodfellow et al. 2015 (arXiv 1412.6544).
    """
    step = difference(end, start)
    ends = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    return Directions("interpolation", (step,), (f"{labels[0]} to {labels[1]}",), points=ends, labels=labels)


def orthonormal(vectors: Tensor, refusal: str) -> Tensor:
    """An orthonormal basis of two vectors' plane: the first along the first, the second on the side of the second.

    Args:
        vectors: [2, P].
        refusal: what is said if they span no plane.

    Returns:
        [2, P].

    Raises:
        InputError: with that message.

    Example:
        >>> orthonormal(torch.tensor([[2.0, 0.0], [1.0, 3.0]]), "")
        tensor([[1., 0.],
                [0., 1.]])
    """
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    first = vectors[0] / lengths[0]
    rest = vectors[1]
    # Once more: the first projection leaves a rounding error that is long beside a short rest.
    for _ in range(2):
        rest = rest - (rest @ first) * first
    length = torch.linalg.vector_norm(rest)
    if not (lengths[0] > 0 and length > _FLAT * lengths[1]):
        raise InputError(refusal)
    return torch.stack([first, rest / length])


def _directions(
    kind: Kind,
    axes: Tensor,
    centre: Weights,
    names: tuple[str, ...],
    points: Tensor,
    labels: Sequence[str],
    explained: tuple[float, ...] = (),
) -> Directions:
    vectors = tuple(like(axis, centre) for axis in axes)
    return Directions(kind, vectors, names, points=points.cpu(), labels=tuple(labels), explained=explained)
