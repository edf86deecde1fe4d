"""Kernels with a correct second derivative, in place of torch's default ones.

Fused attention and cuDNN's recurrent layers have no second derivative. Layer and instance normalization have a wrong
one under ``torch.func.vmap``: batched, their backward formula treats the saved statistics as constants.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def double_backward_kernels(module: nn.Module) -> Generator[None]:
    """Choose kernels of attention and recurrent layers that have a second derivative."""
    fast, without = torch.backends.mha.get_fastpath_enabled(), nullcontext()
    if has_recurrence(module):
        without = torch.backends.cudnn.flags(enabled=False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), without:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def twice_differentiable(module: nn.Module) -> Generator[None]:
    """Choose such kernels, and plain steps for normalizations, whose second derivatives are correct under ``vmap``."""
    with _PlainSteps(), double_backward_kernels(module):
        yield


def has_recurrence(head: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in head.modules())


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
