"""Per-sample gradients of single layers that BackPACK lacks or computes slowly, in plain twice-differentiable steps.

Each function takes a layer, the gradients δ of the summed loss by its output [n, ...] and its input [n, ...], and
returns the gradient of each sample [n, *parameter's shape], summed over the places that share the parameter.
"""

import copy
import math
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Return gradients by the weight of a convolution in 1 or 2 dimensions, of all or some output channels."""
    conv: Any = layer
    if places(layer, deltas) >= _MANY_PLACES.get(deltas.device.type, math.inf):
        return _ConvolutionGradients.apply(deltas, inputs, conv)  # pyright: ignore
    by_place, patches = outer_factors(layer, deltas, inputs)
    return torch.bmm(by_place.mT, patches).reshape(len(inputs), -1, *conv.weight.shape[1:])


# Places of an output from which on one convolution with a group for each sample takes less time than products with
# patches, which a CPU copies slowly.
_MANY_PLACES = {"cpu": 128}


class _ConvolutionGradients(torch.autograd.Function):
    """One convolution with a group for each sample, in all three directions: no patch of the input is ever stored."""

    @staticmethod
    def forward(deltas: Tensor, inputs: Tensor, layer: Any) -> Tensor:
        samples, (outputs, *_), (channels, *_) = len(inputs), deltas.shape[1:], inputs.shape[1:]
        shape = (outputs, channels // layer.groups, *layer.kernel_size)
        weights = deltas.new_empty(samples * outputs, *shape[1:])
        found = _by_sample(layer, deltas, inputs, weights, (False, True))[1]
        return found.view(samples, *shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.layer = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        deltas, inputs = ctx.saved_tensors
        layer, weights = ctx.layer, gradients[0].flatten(0, 1)
        by_deltas = by_inputs = None
        if ctx.needs_input_grad[0]:
            convolution = functional.conv1d if inputs.ndim == 3 else functional.conv2d
            settings = layer.stride, layer.padding, layer.dilation, len(inputs) * layer.groups
            by_deltas = convolution(_one(inputs), weights, None, *settings).view_as(deltas)
        if ctx.needs_input_grad[1]:
            by_inputs = _by_sample(layer, deltas, inputs, weights, (True, False))[0].view_as(inputs)
        return by_deltas, by_inputs, None


def _by_sample(
    layer: Any, deltas: Tensor, inputs: Tensor, weights: Tensor, asked: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Return the gradients by inputs and by weights of one convolution that has weights of its own for each sample."""
    return torch.ops.aten.convolution_backward(
        _one(deltas),
        _one(inputs),
        weights,
        None,
        *(layer.stride, layer.padding, layer.dilation),
        *(False, [0] * len(layer.stride), len(inputs) * layer.groups),
        (*asked, False),
    )[:2]


def _one(samples: Tensor) -> Tensor:
    """Return [n, C, ...] as one sample with n·C channels."""
    return samples.flatten(0, 1).unsqueeze(0)


def normalization_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Return gradients by the scale of a normalization: Σ_place δ·x̂, with x̂ the normalized input."""
    plain: Any = copy.copy(layer)
    # Without scale and shift, the layer returns x̂.
    plain._parameters = dict.fromkeys(plain._parameters)
    if layer.training:
        # Copies, because this call is not to move running statistics.
        plain._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in plain._buffers.items()}
    return shift_gradients(layer, deltas * plain.forward(inputs))


def shift_gradients(layer: nn.Module, deltas: Tensor) -> Tensor:
    """Return gradients by a bias: Σ_place δ."""
    # The channels are axis 1, except in linear layers and normalizations over the last axes.
    last = 1 if isinstance(layer, nn.Linear) else len(getattr(layer, "normalized_shape", ()))
    places = list(range(1, deltas.ndim - last)) if last else list(range(2, deltas.ndim))
    return deltas.sum(places) if places else deltas


def linear_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Return gradients by the weight of a linear layer, of all or some outputs: Σ_place δ ⊗ z."""
    deltas, inputs = (t.reshape(len(t), -1, t.shape[-1]) for t in (deltas, inputs))
    return torch.bmm(deltas.mT, inputs)


def embedding_gradients(layer: nn.Module, deltas: Tensor, indices: Tensor) -> Tensor:
    """Return gradients by the table of an embedding; BackPACK's one-hot codes have torch's default type only."""
    deltas = deltas.reshape(len(deltas), -1, deltas.shape[-1])
    zeros = deltas.new_zeros(len(deltas), *getattr(layer, "weight").shape)  # noqa: B009 (typed as a module otherwise)
    return zeros.scatter_add(1, indices.reshape(len(deltas), -1, 1).expand_as(deltas), deltas)


def places(layer: nn.Module, deltas: Tensor) -> int:
    """Return how many outer products the gradient of a linear layer or convolution sums in each sample."""
    return deltas[0].numel() // deltas.shape[-1 if isinstance(layer, nn.Linear) else 1]


def outer_factors(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return δ [n·groups, places, O] and z [n·groups, places, I] with Σ_p δ_p ⊗ z_p the gradient by a weight."""
    if isinstance(layer, nn.Linear):
        return deltas.reshape(len(deltas), -1, deltas.shape[-1]), inputs.reshape(len(inputs), -1, inputs.shape[-1])
    conv: Any = layer
    settings = {name: getattr(conv, name) for name in ("kernel_size", "dilation", "padding", "stride")}
    if inputs.ndim == 3:
        inputs = inputs.unsqueeze(2)
        settings = {name: (int(name != "padding"), *values) for name, values in settings.items()}
    # All samples' channels as those of one, because on CUDA each sample would be a kernel of its own.
    patches = functional.unfold(inputs.flatten(0, 1), **settings)
    by_place = deltas.reshape(len(deltas) * conv.groups, -1, patches.shape[1])
    return by_place.mT, patches.reshape(len(by_place), -1, patches.shape[1]).mT


def patch_elements(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> int:
    """Return the elements that one sample needs in memory beside its gradient."""
    kernel = getattr(layer, "kernel_size", ())
    if not kernel:
        return max(deltas[0].numel(), inputs[0].numel())
    return inputs.shape[1] * prod(kernel) * deltas[0, 0].numel()
