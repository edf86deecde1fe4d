"""Directions in weight space: one set for all domains, or their landscapes could not be compared."""

from typing import Literal

import torch
from attrs import Factory, frozen
from torch import Tensor

from fishr.errors import InputError
from fishr.landscape.weights import Weights, check_alike, norm

Kind = Literal["random", "pca", "checkpoints", "eigen", "gradients", "line", "interpolation"]


@frozen(eq=False)
class Directions:
    """Vectors in weight space, and where known weights lie along them.

    Args:
        kind: how they were chosen.
        vectors: two span a plane; of kind "line" each is a line of its own; of "interpolation" there is one.
        names: what each vector is, for axes.
        seed: of what was drawn; None where nothing was.
        points: [M, D], float64, coordinates of known weights.
        labels: what each of the points is.
        explained: share of the variance along each vector, from 0 to 1, of kind "pca".

    Raises:
        InputError: a vector is zero or not finite, or of other names or shapes than the first.

    Example:
        >>> Directions("line", ({"w": torch.ones(2)},), ("random",), seed=0).points.shape
        torch.Size([0, 1])
    """

    kind: Kind
    vectors: tuple[Weights, ...]
    names: tuple[str, ...]
    seed: int | None = None
    points: Tensor = Factory(lambda self: torch.zeros(0, len(self.vectors), dtype=torch.float64), takes_self=True)
    labels: tuple[str, ...] = ()
    explained: tuple[float, ...] = ()

    def __attrs_post_init__(self) -> None:
        for name, vector in zip(self.names, self.vectors, strict=True):
            check_alike(vector, self.vectors[0])
            length = norm(vector)
            if not 0 < length < float("inf"):
                raise InputError(
                    f"direction {name!r}: got one of length {length:g}, expected a positive one; "
                    "choose other weights or another kind of directions"
                )


def random_directions(weights: Weights, seed: int, count: int = 2) -> Directions:
    """Gaussian directions whose filters are as long as the weights': d_f ← d_f·‖w_f‖/‖d_f‖.

    A filter is what one output reads: a row of a linear layer's weight, a channel of a convolution's. Biases and
    scales, of one dimension, are left where they are. α = 1 moves by about the length of the weights.

    Args:
        weights: θ.
        seed: decides them, on any device.
        count: how many.

    Returns:
        Directions of kind "random".

    Raises:
        InputError: no parameter has two dimensions, or all of those are zero.

    Example:
        >>> weights = {"weight": torch.tensor([[3.0, 4.0], [0.0, 1.0]]), "bias": torch.ones(2)}
        >>> first, second = random_directions(weights, seed=0).vectors
        >>> first["weight"].norm(dim=1), first["bias"]
        (tensor([5., 1.]), tensor([0., 0.]))

    Source:
        Li et al. 2018 (arXiv 1712.09913), section 4.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = tuple({name: _drawn(value, generator) for name, value in weights.items()} for _ in range(count))
    return Directions("random", drawn, tuple(f"random direction {i + 1}" for i in range(count)), seed)


def random_lines(weights: Weights, seed: int, count: int = 5) -> Directions:
    """The same directions, each a line of its own, for a mean and a band over directions.

    Args:
        weights: θ.
        seed: decides them.
        count: how many lines.

    Returns:
        Directions of kind "line".

    Example:
        >>> random_lines({"weight": torch.ones(2, 2)}, seed=0, count=3).kind
        'line'
    """
    found = random_directions(weights, seed, count)
    return Directions("line", found.vectors, found.names, seed)


def _drawn(value: Tensor, generator: torch.Generator) -> Tensor:
    # On the CPU and in float32, so that a seed gives the same directions everywhere.
    noise = torch.randn(value.shape, generator=generator).to(value)
    if value.ndim < 2:
        return torch.zeros_like(value)
    rest = tuple(range(1, value.ndim))
    lengths = torch.linalg.vector_norm(value, dim=rest, keepdim=True)
    return noise * (lengths / torch.linalg.vector_norm(noise, dim=rest, keepdim=True))
