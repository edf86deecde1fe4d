"""Matrix products in float32 by oneDNN on CPUs where it takes half the time of MKL, which torch uses by default.

These are processors of AMD with AVX-512, which oneDNN uses there and MKL does not.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Multiplications of a matrix product from which on oneDNN is faster though it takes one call for each of several.
_LEAST = 1 << 22


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return ``left @ right`` of matrices [n, k] and [k, m], or of B of each; differentiable, also in vmap."""
    if not _faster(left, right):
        return left @ right
    return _Product.apply(left, right)  # pyright: ignore[reportReturnType]


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``inputs @ weight.mT + bias``."""
    products = matmul(inputs, weight.mT)
    return products if bias is None else products + bias


def multiplied(module: nn.Module, linear: Callable[..., Tensor]) -> nn.Module:
    """Return a copy of a module whose linear layers call ``linear(inputs, weight, bias)``."""
    made = deepcopy(module)
    for layer in made.modules():
        if type(layer) is nn.Linear:
            layer.forward = partial(_called, layer, linear)
    return made


def _called(layer: nn.Linear, linear: Callable[..., Tensor], input: Tensor) -> Tensor:
    return linear(input, layer.weight, layer.bias)


def matmul_into(out: Tensor, left: Tensor, right: Tensor, add: bool) -> None:
    """Write products of matrices [B, n, k] and [B, k, m] to ``out``, or add them to it, without a graph."""
    if not _faster(left, right):
        out.baddbmm_(left, right, beta=float(add))
        return
    for own, first, second in zip(out, left, right, strict=True):
        product = _of_two(first, second)
        if add:
            own += product
        else:
            own.copy_(product)


def batched_matmul(left: Tensor, right: Tensor) -> Tensor:
    """Return products of matrices [B, n, k] and [B, k, m], without a graph."""
    if not _faster(left, right):
        return torch.bmm(left, right)
    return torch.stack([_of_two(*pair) for pair in zip(left, right, strict=True)])


def _of_two(left: Tensor, right: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(_dense(left), _dense(right).mT, None, "none", [], "")


def _dense(matrix: Tensor) -> Tensor:
    # For rows that are parts of longer ones oneDNN has reference code alone, a thousand times as slow.
    return matrix if matrix.is_contiguous() or matrix.mT.is_contiguous() else matrix.contiguous()


def _faster(left: Tensor, right: Tensor) -> bool:
    if left.dtype != torch.float32 or left.device.type != "cpu" or right.dtype != torch.float32:
        return False
    if left.shape[-2] * left.shape[-1] * right.shape[-1] < _LEAST or torch.compiler.is_compiling():
        return False
    return _mkl_is_narrow() and torch.backends.mkldnn.enabled and not torch.is_autocast_enabled("cpu")  # pyright: ignore


def has_avx512() -> bool:
    """Return whether the processor has AVX-512, which oneDNN uses."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


@cache
def _mkl_is_narrow() -> bool:
    """Return whether torch multiplies by an MKL that leaves half of the processor's registers unused."""
    known, processor = torch.backends, Path("/proc/cpuinfo")
    here = known.mkl.is_available() and known.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return here and has_avx512() and processor.is_file() and "AuthenticAMD" in processor.read_text()


class _Product(torch.autograd.Function):
    """Of two matrices, or of several pairs; its derivatives are such products again."""

    @staticmethod
    def forward(left: Tensor, right: Tensor) -> Tensor:
        return _of_two(left, right) if left.ndim == 2 else batched_matmul(left, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        heads = info.batch_size
        every = [
            each.expand(heads, *each.shape) if dim is None else each.movedim(dim, 0)
            for each, dim in zip(inputs, in_dims, strict=True)
        ]
        if every[0].ndim == 3:
            return _Product.apply(*every), 0  # pyright: ignore[reportReturnType]
        return matmul(*(each.flatten(0, 1) for each in every)).unflatten(0, (heads, -1)), 0

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (left, right), (slope,) = ctx.saved_tensors, gradients
        by_left, by_right = ctx.needs_input_grad
        return matmul(slope, right.mT) if by_left else None, matmul(left.mT, slope) if by_right else None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor | None:
        (left, right), (by_left, by_right) = ctx.saved_tensors, tangents
        first = None if by_left is None else matmul(by_left, right)
        second = None if by_right is None else matmul(left, by_right)
        return second if first is None else first if second is None else first + second
