"""Directions in weight space, shared by all domains so that their landscapes are comparable."""

from typing import Literal

import torch
from attrs import Factory, evolve, frozen
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.landscape.plane import Weights, check_alike, flattened, like, weights_of
from fishr.losses import CrossEntropy, Loss, labeled_samples, per_sample_losses

Kind = Literal["random", "pca", "checkpoints", "eigen", "gradients", "line", "interpolation"]
# If the second of two vectors is shorter beside the first than this share, it is rounding error.
FLAT = 1e-6


@frozen(eq=False)
class Directions:
    """Vectors in weight space, and the coordinates of known weights along them.

    Args:
        kind: how they were chosen.
        vectors: two that span a plane; for kind "line", any number of separate lines; for "interpolation", one.
        names: of the vectors, for axis labels.
        seed: of random directions, else None.
        points: [M, D], float64, coordinates of known weights.
        labels: of the points.
        explained: share of the variance along each vector, from 0 to 1, for kind "pca".

    Raises:
        InputError: a vector is zero or not finite, or differs from the first in a name or shape.

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
            length = float(torch.linalg.vector_norm(flattened(vector)))
            if not 0 < length < float("inf"):
                raise InputError(
                    f"direction {name!r}: got one of length {length:g}, expected a positive one; "
                    "choose other weights or another kind of directions"
                )


def random_directions(weights: Weights, seed: int, count: int = 2) -> Directions:
    """Return Gaussian directions, normalized by filter: d_f ← d_f·‖w_f‖/‖d_f‖.

    A filter belongs to one output: a row of a linear layer's weight, a channel of a convolution's. One-dimensional
    parameters (biases, scales) do not move. α = 1 is about the length of the weights.

    Args:
        seed: the same seed gives the same directions on any device.

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
    vectors = tuple({name: _drawn(value, generator) for name, value in weights.items()} for _ in range(count))
    return Directions("random", vectors, tuple(f"random direction {i + 1}" for i in range(count)), seed)


def _drawn(value: Tensor, generator: torch.Generator) -> Tensor:
    # On the CPU and in float32, so that a seed gives the same directions everywhere.
    noise = torch.randn(value.shape, generator=generator).to(value)
    if value.ndim < 2:
        return torch.zeros_like(value)
    rest = tuple(range(1, value.ndim))
    lengths = torch.linalg.vector_norm(value, dim=rest, keepdim=True)
    return noise * (lengths / torch.linalg.vector_norm(noise, dim=rest, keepdim=True))


def random_lines(weights: Weights, seed: int, count: int = 5) -> Directions:
    """Return the directions of ``random_directions`` as separate lines, for a mean and a band over directions.

    Args:
        seed: as for ``random_directions``.
        count: number of lines.

    Raises:
        InputError: as for ``random_directions``.

    Example:
        >>> len(random_lines({"weight": torch.ones(2, 3)}, seed=0, count=4).vectors)
        4
    """
    return evolve(random_directions(weights, seed, count), kind="line")


def eigen_directions(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    name: str,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
) -> Directions:
    """Return the two top Hessian eigenvectors of one domain's risk, of length 1.

    Args:
        module: a head on features or a whole network, in eval mode.
        inputs: [n, ...] of the domain.

    Returns:
        Directions of kind "eigen", with the eigenvalues in the names.

    Raises:
        InputError: the module has a single parameter.

    Example:
        >>> head = nn.Linear(3, 2)
        >>> found = eigen_directions(head, torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), "photo")
        >>> round(float(found.vectors[0]["weight"].square().sum() + found.vectors[0]["bias"].square().sum()), 4)
        1.0
    """
    from fishr.diagnostics.curvature import Curvature

    (pairs,) = Curvature.of(module, inputs, labels, (len(inputs),), loss).tops(2)
    if len(pairs.values) < 2:
        raise InputError(f"eigen: got {len(pairs.values)} eigenvector for {name!r}, expected 2; the head is too small")
    values, vectors, weights = pairs.values.tolist(), pairs.vectors.T, weights_of(module)
    names = tuple(f"eigenvector {i + 1} of {name}, λ = {value:.3g}" for i, value in enumerate(values[:2]))
    return Directions("eigen", tuple(like(vector, weights) for vector in vectors[:2]), names)


def gradient_directions(
    module: nn.Module,
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    names: tuple[str, str],
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
    chunk: int = 1024,
) -> Directions:
    """Return an orthonormal basis of the plane of two domains' gradients, the first axis along the first gradient.

    Args:
        module: a head on features or a whole network, in eval mode.
        first: inputs [n, ...] and labels of one domain.
        second: those of another domain.
        chunk: samples of one pass, which bounds memory.

    Returns:
        Directions of kind "gradients"; the points are −∇R_e/‖∇R_e‖.

    Raises:
        InputError: a gradient is zero, or the two are parallel.

    Example:
        >>> head, data = nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]))
        >>> found = gradient_directions(head, data, (torch.randn(4, 3), torch.tensor([0, 1, 1, 0])), ("a", "b"))
        >>> found.points[0].tolist(), found.labels
        ([-1.0, 0.0], ('−∇ a', '−∇ b'))
    """
    gradients = torch.stack([domain_gradient(module, *data, loss=loss, chunk=chunk) for data in (first, second)])
    pair = " and ".join(map(repr, names))
    refusal = f"gradients: got those of {pair} zero or parallel, expected a plane; choose other domains"
    axes = orthonormal(gradients, refusal)
    units = gradients / torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
    # Exactly −1 and 0 for the first, which is an axis.
    points = torch.stack([units.new_tensor([-1.0, 0.0]), -(axes @ units[1])]).cpu()
    weights = weights_of(module)
    return Directions(
        "gradients",
        tuple(like(axis, weights) for axis in axes),
        (f"gradient of {names[0]}", f"gradient of {names[1]}, orthogonal part"),
        points=points,
        labels=tuple(f"−∇ {name}" for name in names),
    )


def domain_gradient(module: nn.Module, inputs: Tensor, labels: Tensor, loss: Loss, chunk: int = 1024) -> Tensor:
    """Return ∇R [P] of one domain by the trainable parameters, float64, loss/parameter, without touching ``.grad``."""
    inputs, labels = labeled_samples(loss, inputs, labels)
    parameters = [p for p in module.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64, device=inputs.device)
    for some, own in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        with torch.enable_grad():
            value = per_sample_losses(loss, module(some), own).sum()
        parts = torch.autograd.grad(value, parameters, materialize_grads=True)
        total += torch.cat([part.flatten().double() for part in parts])
    return total / len(inputs)


def orthonormal(vectors: Tensor, refusal: str) -> Tensor:
    """Return axes [2, P]: the first along the first vector, the second on the side of the second vector."""
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    first, rest = vectors[0] / lengths[0], vectors[1]
    # Twice: the first projection leaves a rounding error that is large beside a short rest.
    for _ in range(2):
        rest = rest - (rest @ first) * first
    length = torch.linalg.vector_norm(rest)
    if not (lengths[0] > 0 and length > FLAT * lengths[1]):
        raise InputError(refusal)
    return torch.stack([first, rest / length])
