"""Gradient statistics of linear layers in closed form: of a head of one, or of several with functions between them.

The per-sample gradient of a linear layer is an outer product, g = δ ⊗ z for the weight and δ for the bias, so
Σ g = DᵀZ and Σ g² = (D∘D)ᵀ(Z∘Z): two matrix products a domain for any loss, and no per-sample gradient. δ goes back
from layer to layer in plain steps, which autograd can differentiate again and ``torch.func.vmap`` can map over heads.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor, nn

from fishr.losses import Loss, loss_deltas
from fishr.matrix_products import matmul
from fishr.row_checks import check_sizes
from fishr.statistics.domain_moments import GradientMoments
from fishr.types import Layout

_FUNCTIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Identity)


def is_plain_linear(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether the head is one trainable linear layer, without hooks or parametrizations."""
    return (
        type(head) is nn.Linear
        and all(parameter.requires_grad for parameter in head.parameters())
        and not (head._forward_hooks or head._forward_pre_hooks)  # pyright: ignore[reportPrivateUsage]
    )


def has_bias(head: nn.Module) -> bool:
    return getattr(head, "bias", None) is not None


def linear_moments(
    deltas: Tensor, features: Tensor, sizes: tuple[int, ...], bias: bool = True, weights: Tensor | None = None
) -> GradientMoments:
    """Return per-domain moments of δ ⊗ z and δ.

    mean = DᵀZ/n and variance = (D∘D)ᵀ(Z∘Z)/n − mean². The subtraction loses digits where a domain's mean gradient is
    large compared with its spread (float32: relative error about 1e-7·mean²/variance); float64 tensors keep them.

    Args:
        deltas: [N, C], δ = ∂ℓ/∂logits of the unscaled per-sample loss.
        features: [N, F], inputs of the head.
        sizes: samples of each domain.
        bias: the head has a bias.
        weights: [N], of the samples in the means, with mean 1 in each domain; None: 1.

    Returns:
        Moments with columns weight [C, F], then bias [C]; differentiable by both tensors, under ``torch.func`` too.

    Raises:
        InputError: the sizes do not fit the rows.

    Example:
        >>> moments = linear_moments(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [2.0]]), sizes=(2,))
        >>> moments.mean, moments.variance
        (tensor([[4., 2.]]), tensor([[4., 1.]]))
    """
    sizes = check_sizes(sizes, len(features))
    firsts: list[Tensor] = []
    seconds: list[Tensor] = []
    weighted = deltas if weights is None else deltas * weights.unsqueeze(1)
    for delta, own, z in zip(deltas.split(sizes), weighted.split(sizes), features.split(sizes), strict=True):
        squared, delta = own * delta, own
        first, second = matmul(delta.T, z), matmul(squared.T, z * z)
        firsts.append(torch.cat([first.flatten(), delta.sum(0)]) if bias else first.flatten())
        seconds.append(torch.cat([second.flatten(), squared.sum(0)]) if bias else second.flatten())
    counts = features.new_tensor(sizes).unsqueeze(1)
    mean = torch.stack(firsts) / counts
    variance = torch.addcmul(torch.stack(seconds) / counts, mean, mean, value=-1)
    outputs, width = deltas.shape[1], features.shape[1]
    names, shapes = ("weight", "bias"), ((outputs, width), (outputs,))
    layout = Layout(names, shapes) if bias else Layout(names[:1], shapes[:1])
    return GradientMoments(tuple(sizes), mean, variance, layout)


def linear_gram(deltas: Tensor, features: Tensor, bias: bool = True) -> Tensor:
    """Return the Gram matrix [N, N] of a linear head's per-sample gradients: (δ_n·δ_m)(z_n·z_m + 1)."""
    return matmul(deltas, deltas.T) * (matmul(features, features.T) + float(bias))


def linear_deltas(head: nn.Module, features: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Return δ = ∂ℓ/∂logits [N, C] of a linear head, with logits in the features' type."""
    weight, *bias = (parameter.to(features.dtype) for parameter in head.parameters())
    return loss_deltas(loss, nn.functional.linear(features, weight, *bias), labels)


class Factors(NamedTuple):
    """Of the per-sample gradients of a linear layer: δ ⊗ z of the weight and, with ``bias``, δ of the bias."""

    deltas: Tensor  # [N, C]
    inputs: Tensor  # [N, F]
    bias: bool

    @property
    def size(self) -> int:
        """Number of parameters of the layer."""
        return self.deltas.shape[1] * (self.inputs.shape[1] + self.bias)


def is_linear_stack(head: nn.Module) -> TypeGuard[nn.Sequential]:
    """Return whether a head is a sequence of trainable linear layers and functions of single numbers, without hooks."""
    if type(head) is not nn.Sequential or not all(p.requires_grad for p in head.parameters()):
        return False
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in head.modules())  # pyright: ignore
    in_place = any(getattr(layer, "inplace", False) for layer in head)
    parameters = [parameter for layer in head for parameter in layer.parameters()]
    # The gradient of a weight that two layers share is a sum of two outer products.
    shared = len({*map(id, parameters)}) < len(parameters)
    known = all(type(layer) in (nn.Linear, *_FUNCTIONS) for layer in head)
    return known and len(parameters) > 0 and not hooked and not in_place and not shared


def stack_inputs(head: nn.Sequential, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the logits, and what each layer and function read."""
    read, z = list[Tensor](), features
    for layer in head:
        read.append(z)
        z = layer(z)
    return z, tuple(read)


def stack_factors(head: nn.Sequential, inputs: Sequence[Tensor], deltas: Tensor) -> tuple[Factors, ...]:
    """Return the factors of each linear layer, from those of the logits: δ = ∂ℓ/∂logits."""
    found = list[Factors]()
    differentiate: Any = torch.func.vjp
    first = next(place for place, layer in enumerate(head) if type(layer) is nn.Linear)
    for place in reversed(range(first, len(head))):
        layer, z = head[place], inputs[place]
        if type(layer) is not nn.Linear:
            deltas = differentiate(layer, z)[1](deltas)[0]
            continue
        found.append(Factors(deltas, z, has_bias(layer)))
        if place > first:
            deltas = matmul(deltas, layer.weight)
    return tuple(reversed(found))


def stacked_moments(
    head: nn.Sequential, factors: Sequence[Factors], sizes: tuple[int, ...], weights: Tensor | None = None
) -> GradientMoments:
    """Return per-domain moments of the per-sample gradients; see ``linear_moments``."""
    own = [linear_moments(deltas, z, sizes, bias, weights) for deltas, z, bias in factors]
    mean, variance = (torch.cat([getattr(one, name) for one in own], 1) for name in ("mean", "variance"))
    return GradientMoments(tuple(sizes), mean, variance, Layout.of(head))


def stacked_gram(factors: Sequence[Factors]) -> Tensor:
    """Return the Gram matrix [N, N] of the per-sample gradients."""
    return torch.stack([linear_gram(deltas, z, bias) for deltas, z, bias in factors]).sum(0)
