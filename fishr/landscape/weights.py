"""Weights of a module as named tensors: what directions and planes are made of."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fishr.errors import InputError

Weights = dict[str, Tensor]


def weights_of(module: nn.Module, buffers: bool = False) -> Weights:
    """The trainable parameters of a module by name, as they are, without a graph.

    Args:
        module: any.
        buffers: whether its floating-point buffers, such as running means, count as weights.

    Returns:
        Views of the parameters.

    Raises:
        InputError: none of them requires grad.

    Example:
        >>> list(weights_of(nn.Linear(3, 2)))
        ['weight', 'bias']
    """
    found = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    if not found:
        raise InputError(
            f"landscape: {type(module).__name__} has no parameter that requires grad, expected at least one"
        )
    if buffers:
        found |= {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    return found


def shifted(centre: Weights, *steps: tuple[float, Weights]) -> Weights:
    """θ + Σ α_s d_s.

    Args:
        centre: θ.
        steps: pairs (α_s, d_s) of the same names and shapes.

    Example:
        >>> shifted({"w": torch.ones(2)}, (0.5, {"w": torch.tensor([0.0, 2.0])}))["w"]
        tensor([1., 2.])
    """
    moved = dict(centre)
    for amount, direction in steps:
        moved = {name: torch.add(value, direction[name], alpha=amount) for name, value in moved.items()}
    return moved


def difference(end: Weights, start: Weights) -> Weights:
    """end − start.

    Raises:
        InputError: the two differ in names or shapes.

    Example:
        >>> difference({"w": torch.ones(2)}, {"w": torch.ones(2)})["w"]
        tensor([0., 0.])
    """
    check_alike(end, start)
    return {name: value - start[name].to(value) for name, value in end.items()}


def flattened(weights: Weights) -> Tensor:
    """[P], float64, in the order of the names.

    Example:
        >>> flattened({"w": torch.ones(2, 1), "b": torch.zeros(1)})
        tensor([1., 1., 0.], dtype=torch.float64)
    """
    return torch.cat([value.detach().flatten().double() for value in weights.values()])


def like(flat: Tensor, weights: Weights) -> Weights:
    """A [P] vector cut into tensors of the names, shapes and types of some weights.

    Example:
        >>> like(torch.arange(3.0), {"w": torch.ones(2, 1), "b": torch.zeros(1)})["b"]
        tensor([2.])
    """
    parts = flat.split([value.numel() for value in weights.values()])
    return {
        name: part.reshape(value.shape).to(value) for part, (name, value) in zip(parts, weights.items(), strict=True)
    }


def norm(weights: Weights) -> float:
    """‖θ‖, Euclidean over all parameters.

    Example:
        >>> norm({"w": torch.tensor([3.0]), "b": torch.tensor([4.0])})
        5.0
    """
    return float(torch.linalg.vector_norm(flattened(weights)))


def check_alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """Refuse weights of different modules.

    Raises:
        InputError: a name or shape of one is not in the other; it is named.

    Example:
        >>> check_alike({"w": torch.ones(2)}, {"w": torch.zeros(2)})
    """
    for name in [*one, *(name for name in other if name not in one)]:
        shapes = [tuple(each[name].shape) if name in each else "none" for each in (one, other)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"parameter {name}: got shapes {shapes[0]} and {shapes[1]}, expected one shape; "
                "a landscape joins weights of one architecture"
            )
