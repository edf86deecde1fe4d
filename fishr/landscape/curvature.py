"""Directions from what the risk is like at the weights: top Hessian eigenvectors of a domain, gradients of two."""

import torch
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.landscape.directions import Directions
from fishr.landscape.trajectory import orthonormal
from fishr.landscape.weights import like, weights_of
from fishr.losses import CrossEntropy, Loss, per_sample_losses


def eigen_directions(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    name: str,
    loss: Loss = CrossEntropy(),  # noqa: B008 (immutable)
) -> Directions:
    """The two top Hessian eigenvectors of one domain's risk, of length 1: along them it is steepest to second order.

    Args:
        module: a head on features or a whole network, in eval mode.
        inputs: [n, ...] of the domain.
        labels: what the loss reads.
        name: the domain's.
        loss: per-sample.

    Returns:
        Directions of kind "eigen", their eigenvalues in the names.

    Raises:
        InputError: there are not two.

    Example:
        >>> head = nn.Linear(3, 2)
        >>> found = eigen_directions(head, torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), "photo")
        >>> round(float(found.vectors[0]["weight"].square().sum() + found.vectors[0]["bias"].square().sum()), 4)
        1.0
    """
    from fishr.diagnostics import Inspection

    (pairs,) = Inspection(module, inputs, labels, (len(inputs),), loss).tops(2)
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
    """The plane of two domains' gradients, orthonormal: the first axis along the first domain's.

    Args:
        module: a head on features or a whole network, in eval mode.
        first: inputs [n, ...] and labels of one domain.
        second: of another one.
        names: the domains'.
        loss: per-sample.
        chunk: rows of one pass, which bounds memory.

    Returns:
        Directions of kind "gradients"; the points are where each domain's descent of length 1 leads.

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
    # Exactly −1 and 0 for the first, whose axis it is.
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
    """∇R of one domain by the module's trainable parameters; nothing is left in ``.grad``.

    Args:
        module: in eval mode.
        inputs: [n, ...].
        labels: what the loss reads.
        loss: per-sample.
        chunk: rows of one pass.

    Returns:
        [P], float64, loss/parameter.

    Example:
        >>> domain_gradient(nn.Linear(3, 2), torch.randn(5, 3), torch.zeros(5).long(), CrossEntropy()).shape
        torch.Size([8])
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64, device=inputs.device)
    for rows, wanted in zip(inputs.split(chunk), labels.split(chunk), strict=True):
        with torch.enable_grad():
            value = per_sample_losses(loss, module(rows), wanted).sum()
        parts = torch.autograd.grad(value, parameters, materialize_grads=True)
        total += torch.cat([part.flatten().double() for part in parts])
    return total / len(inputs)
