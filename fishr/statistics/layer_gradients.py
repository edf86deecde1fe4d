"""Per-sample gradients of single layers, where BackPACK lacks them or is slow: plain steps, twice differentiable.

Each function takes a layer, the gradients δ of the summed loss by its output [n, ...] and its input [n, ...], and
returns the gradient of each sample [n, *parameter's shape], as a sum over the places that share the parameter.
"""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Gradients by the weight of a convolution in one or two dimensions, or of some of its output channels.

    Patches are laid out as columns, so that each sample is one matrix product, Σ_place δ ⊗ patch. Grouped
    convolutions, which need no patches, are several times slower on a CPU.

    Args:
        layer: nn.Conv1d or nn.Conv2d with zero padding given in numbers; ungrouped if ``deltas`` has some channels.
        deltas: [n, C, ...], δ by all output channels or by some.
        inputs: [n, F, ...].

    Returns:
        [n, C, F / groups, ...].

    Example:
        >>> convolution_gradients(nn.Conv1d(2, 4, 3), torch.ones(5, 4, 6), torch.ones(5, 2, 8)).shape
        torch.Size([5, 4, 2, 3])
    """
    conv: Any = layer
    shape = conv.weight.shape[1:]
    flat = inputs.ndim == 3

    def numbers(values: tuple[int, ...], other: int) -> tuple[int, ...]:
        return (other, *values) if flat else values

    patches = functional.unfold(
        inputs.unsqueeze(2) if flat else inputs,
        numbers(conv.kernel_size, 1),
        numbers(conv.dilation, 1),
        numbers(conv.padding, 0),
        numbers(conv.stride, 1),
    )
    groups = conv.groups
    places = patches.shape[2]
    deltas = deltas.reshape(len(deltas) * groups, -1, places)
    patches = patches.reshape(len(deltas), -1, places)
    return torch.bmm(deltas, patches.mT).reshape(len(inputs), -1, *shape)


def normalization_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Gradients by the scale of a normalization: Σ_place δ·x̂, with x̂ the normalized input.

    Args:
        layer: batch normalization in eval mode, instance, group, layer or RMS normalization.
        deltas: [n, ...].
        inputs: [n, ...], as ``deltas``.

    Returns:
        [n, *scale's shape].

    Example:
        >>> normalization_gradients(nn.GroupNorm(2, 4), torch.ones(5, 4, 3), torch.randn(5, 4, 3)).shape
        torch.Size([5, 4])
    """
    return shift_gradients(layer, deltas * _normalized(layer, inputs))


def shift_gradients(layer: nn.Module, deltas: Tensor) -> Tensor:
    """Gradients by what a layer adds to its output at every place: Σ_place δ.

    Args:
        layer: its parameter has the channels' axis (axis 1), but in linear layers and those normalizations that
            read last axes.
        deltas: [n, ...].

    Returns:
        [n, *parameter's shape].

    Example:
        >>> shift_gradients(nn.GroupNorm(2, 4), torch.ones(5, 4, 3, 3))[0]
        tensor([9., 9., 9., 9.])
        >>> shift_gradients(nn.LayerNorm(3), torch.ones(5, 4, 3))[0]
        tensor([4., 4., 4.])
    """
    last = 1 if isinstance(layer, nn.Linear) else len(getattr(layer, "normalized_shape", ()))
    places = list(range(1, deltas.ndim - last)) if last else list(range(2, deltas.ndim))
    return deltas.sum(places) if places else deltas


def linear_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Gradients by the weight of a linear layer, or of some of its outputs: Σ_place δ ⊗ z.

    Args:
        layer: the layer.
        deltas: [n, ..., C], δ by all outputs or by some.
        inputs: [n, ..., F].

    Returns:
        [n, C, F].

    Example:
        >>> linear_gradients(nn.Linear(3, 2), torch.ones(5, 4, 2), torch.ones(5, 4, 3)).shape
        torch.Size([5, 2, 3])
    """
    deltas, inputs = (t.reshape(len(t), -1, t.shape[-1]) for t in (deltas, inputs))
    return torch.bmm(deltas.mT, inputs)


def embedding_gradients(layer: nn.Module, deltas: Tensor, indices: Tensor) -> Tensor:
    """Gradients by the table of an embedding: each index adds to its own row.

    BackPACK's one-hot codes are of torch's default type alone.

    Args:
        layer: nn.Embedding.
        deltas: [n, ..., F].
        indices: [n, ...].

    Returns:
        [n, rows of the table, F].

    Example:
        >>> embedding_gradients(nn.Embedding(3, 1), torch.ones(1, 4, 1), torch.tensor([[0, 2, 2, 2]])).flatten()
        tensor([1., 0., 3.])
    """
    deltas = deltas.reshape(len(deltas), -1, deltas.shape[-1])
    zeros = deltas.new_zeros(len(deltas), *getattr(layer, "weight").shape)  # noqa: B009 (typed as a module otherwise)
    return zeros.scatter_add(1, indices.reshape(len(deltas), -1, 1).expand_as(deltas), deltas)


def _normalized(layer: nn.Module, inputs: Tensor) -> Tensor:
    norm: Any = layer
    if isinstance(layer, nn.GroupNorm):
        return functional.group_norm(inputs, norm.num_groups, eps=norm.eps)
    if isinstance(layer, nn.LayerNorm):
        return functional.layer_norm(inputs, norm.normalized_shape, eps=norm.eps)
    if isinstance(layer, nn.RMSNorm):
        return functional.rms_norm(inputs, norm.normalized_shape, eps=norm.eps)
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm) and (  # pyright: ignore[reportPrivateUsage]
        norm.training or not norm.track_running_stats
    ):
        return functional.instance_norm(inputs, eps=norm.eps)
    channels = (-1, *[1] * (inputs.ndim - 2))
    mean, variance = norm.running_mean.view(channels), norm.running_var.view(channels)
    return (inputs - mean) * (variance + norm.eps).rsqrt()


def patch_elements(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> int:
    """Numbers that one sample takes on the way to its gradient, the gradient itself aside.

    Example:
        >>> patch_elements(nn.Conv1d(2, 4, 3), torch.ones(5, 4, 6), torch.ones(5, 2, 8))
        36
    """
    kernel = getattr(layer, "kernel_size", ())
    if not kernel:
        return max(deltas[0].numel(), inputs[0].numel())
    return inputs.shape[1] * prod(kernel) * deltas[0, 0].numel()
