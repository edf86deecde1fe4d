"""Operations that torch differentiates once under ``torch.func.vmap``, but not rightly twice, in plain steps.

Layer and instance normalization keep their statistics from the forward pass and, batched, forget that these depend on
the input too: the gradient of a per-sample gradient comes out wrong without a word. Fused attention has no second
derivative at all.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def twice_differentiable() -> Generator[None]:
    """Within it, normalizations and attention take plain steps, whose second derivatives are right.

    Example:
        >>> with twice_differentiable():
        ...     functional.layer_norm(torch.tensor([[1.0, 3.0]]), (2,), eps=0.0)
        tensor([[-1.,  1.]])
    """
    with _PlainSteps(), sdpa_kernel(SDPBackend.MATH):
        yield


class _PlainSteps(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain: dict[Any, Callable[..., Tensor]] = {
            functional.layer_norm: _layer_norm,
            torch.layer_norm: _layer_norm,
            functional.instance_norm: _instance_norm,
        }
        if func in plain:
            func = plain[func]
        return func(*args, **(kwargs or {}))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    normalized = _normalize(input, list(range(-len(normalized_shape), 0)), eps)
    normalized = normalized if weight is None else normalized * weight
    return normalized if bias is None else normalized + bias


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    channels = (-1, *[1] * (input.ndim - 2))
    if use_input_stats or running_mean is None or running_var is None:
        normalized = _normalize(input, list(range(2, input.ndim)), eps)
    else:
        normalized = (input - running_mean.view(channels)) / (running_var.view(channels) + eps).sqrt()
    normalized = normalized if weight is None else normalized * weight.view(channels)
    return normalized if bias is None else normalized + bias.view(channels)


def _normalize(input: Tensor, dims: list[int], eps: float) -> Tensor:
    centered = input - input.mean(dims, keepdim=True)
    return centered / (centered.square().mean(dims, keepdim=True) + eps).sqrt()
