"""Per-sample gradients of single layers that BackPACK lacks or computes slowly, in plain twice-differentiable steps.

Each function takes a layer, the gradients δ of the summed loss by its output [n, ...] and its input [n, ...], and
returns the gradient of each sample [n, *parameter's shape], summed over the places that share the parameter.
"""

import copy
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolution_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Return gradients by the weight of a convolution in 1 or 2 dimensions, of all or some output channels."""
    # Unfolded patches make each sample one matrix product; on a CPU a grouped convolution is several times slower.
    conv: Any = layer
    shape = conv.weight.shape[1:]
    settings = {name: getattr(conv, name) for name in ("kernel_size", "dilation", "padding", "stride")}
    if inputs.ndim == 3:
        images = inputs.unsqueeze(2)
        settings = {name: (int(name != "padding"), *values) for name, values in settings.items()}
    else:
        images = inputs
    patches = functional.unfold(images, **settings)
    deltas = deltas.reshape(len(deltas) * conv.groups, -1, patches.shape[2])
    patches = patches.reshape(len(deltas), -1, patches.shape[2])
    return torch.bmm(deltas, patches.mT).reshape(len(inputs), -1, *shape)


def normalization_gradients(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> Tensor:
    """Return gradients by the scale of a normalization: Σ_place δ·x̂, with x̂ the normalized input."""
    plain: Any = copy.copy(layer)
    # Without scale and shift, the layer returns x̂.
    plain._parameters = dict.fromkeys(plain._parameters)
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


def patch_elements(layer: nn.Module, deltas: Tensor, inputs: Tensor) -> int:
    """Return the elements that one sample needs in memory beside its gradient."""
    kernel = getattr(layer, "kernel_size", ())
    if not kernel:
        return max(deltas[0].numel(), inputs[0].numel())
    return inputs.shape[1] * prod(kernel) * deltas[0, 0].numel()
