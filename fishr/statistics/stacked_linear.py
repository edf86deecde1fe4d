"""Gradient statistics of a sequence of linear layers and functions, in closed form layer by layer.

The per-sample gradient of a linear layer is an outer product of what it reads and of the gradient of the loss by its
output, so its moments are those of ``linear_moments``. All steps can be mapped by ``torch.func.vmap`` over several
heads, which BackPACK cannot.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fishr.losses import Loss, per_sample_losses
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.linear_head import has_bias, linear_moments
from fishr.types import Layout

_FUNCTIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Identity)


def is_linear_stack(head: nn.Module) -> TypeGuard[nn.Sequential]:
    """Return whether a head is a sequence of trainable linear layers and functions of single numbers, without hooks."""
    if type(head) is not nn.Sequential or not all(p.requires_grad for p in head.parameters()):
        return False
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in head.modules())  # pyright: ignore
    return not hooked and all(type(layer) in (nn.Linear, *_FUNCTIONS) for layer in head)


def stacked_linear_moments(
    head: nn.Sequential,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss,
    weights: Tensor | None = None,
) -> GradientMoments:
    """Return per-domain moments of the per-sample gradients, on features [N, F]; see ``linear_moments``."""
    layers = [layer for layer in head if type(layer) is nn.Linear]

    def total(shifts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the sum of the losses with shifted outputs of the linear layers, and what these read."""
        read, z = list[Tensor](), features
        for layer in head:
            if type(layer) is nn.Linear:
                read.append(z)
                z = layer(z) + shifts[len(read) - 1]
            else:
                z = layer(z)
        return per_sample_losses(loss, z, labels).sum(), read

    differentiate: Any = torch.func.grad(total, has_aux=True)
    deltas, read = differentiate([features.new_zeros(len(features), layer.out_features) for layer in layers])
    parts = zip(deltas, read, layers, strict=True)
    own = [linear_moments(delta, z, sizes, has_bias(layer), weights) for delta, z, layer in parts]
    mean, variance = (torch.cat([getattr(one, name) for one in own], 1) for name in ("mean", "variance"))
    return GradientMoments(tuple(sizes), mean, variance, Layout.of(head))
