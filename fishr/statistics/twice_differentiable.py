"""Kernels with a correct second derivative, in place of torch's default ones.

Fused attention and cuDNN's recurrent layers have no second derivative. Layer and instance normalization have a wrong
one under ``torch.func.vmap``: batched, their backward formula treats the saved statistics as constants. Group
normalization, of which both are cases, has a correct one.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def double_backward_kernels(module: nn.Module) -> Generator[None]:
    """Choose kernels of attention and recurrent layers that have a second derivative."""
    if torch.compiler.is_compiling():
        with sdpa_kernel(SDPBackend.MATH):
            yield
        return
    fast, without = torch.backends.mha.get_fastpath_enabled(), nullcontext()
    if has_recurrence(module):
        without = torch.backends.cudnn.flags(enabled=False)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), without:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def has_recurrence(head: nn.Module) -> bool:
    return any(isinstance(module, nn.RNNBase) for module in head.modules())


class GroupNormalizations(TorchFunctionMode):
    """Compute layer and instance normalizations as group normalizations, also correct twice under ``vmap``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        replaced: dict[Any, Callable[..., Tensor]] = {
            functional.layer_norm: _layer_norm,
            torch.layer_norm: _layer_norm,
            functional.instance_norm: _instance_norm,
        }
        if func in replaced:
            func = replaced[func]
        return func(*args, **(kwargs or {}))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    groups = input.reshape(-1, 1, prod(normalized_shape))
    normalized = torch.group_norm(groups, 1, eps=eps).view(input.shape)
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
    if use_input_stats or running_mean is None:
        return torch.group_norm(input, input.shape[1], weight, bias, eps)
    return functional.batch_norm(input, running_mean, running_var, weight, bias, eps=eps)
