"""Group normalization whose second derivative takes a few fused kernels, where torch's takes eighty operators.

With x̂ = (x − μ)·r and Π the projection off 1 and x̂ in each group, the gradient by x is r·Π(w·g). Π is symmetric, so
that the gradients of this by g and by x are calls of the same kernel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_forward: Callable[..., Any] = torch.native_group_norm
_backward: Callable[..., Any] = torch.ops.aten.native_group_norm_backward
# A GPU takes less time for few kernels; on a CPU both ways take the same.
_DEVICES = {"cuda"}


class FusedGroupNorm(TorchFunctionMode):
    """Compute group normalizations on a GPU by ``group_norm``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.group_norm and args and args[0].device.type in _DEVICES:
            func = group_norm
        return func(*args, **(kwargs or {}))


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Return ``functional.group_norm`` of the same arguments."""
    return _GroupNorm.apply(input.contiguous(), weight, bias, num_groups, eps)  # pyright: ignore


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, eps: float) -> Tensor:
        sizes = *x.shape[:2], x[0, 0].numel(), groups
        y, mean, r = _forward(x, weight, bias, *sizes, eps)
        ctx.sizes, ctx.eps = sizes, eps
        ctx.save_for_backward(x, weight, bias, mean, r)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, r = ctx.saved_tensors
        found: Any = _GroupNormBackward.apply(gradients[0].contiguous(), x, weight, bias, mean, r, ctx.sizes, ctx.eps)
        by_x, by_weight, by_bias = found
        return by_x, None if weight is None else by_weight, None if bias is None else by_bias, None, None


class _GroupNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> Any:
        mean, r, ctx.sizes, ctx.eps = rest
        found = _backward(g, x, mean, r, weight, *ctx.sizes, (True, True, True))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, x, weight, bias, mean, r, found[0])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        g, x, weight, _, mean, r, by_x = ctx.saved_tensors
        v, rest = gradients[0], (None,) * 5
        if torch.is_grad_enabled() or v is None or any(other is not None for other in gradients[1:]):
            return *_by_torch(ctx, gradients), *rest
        v, sizes, only = v.contiguous(), ctx.sizes, (True, False, False)
        groups = x.shape[0], sizes[3], -1
        scaled = g if weight is None else g * _channels(weight, x)
        normal = _forward(x, None, None, *sizes, ctx.eps)[0].view(groups)
        by_groups, of_groups, r_of = scaled.view(groups), v.view(groups), r.unsqueeze(2)
        spread = (by_groups * normal).mean(2, keepdim=True) * r_of
        turned = (of_groups * normal).mean(2, keepdim=True) * r_of
        mixed = (of_groups * spread).addcmul_(by_groups, turned)
        by_input = _backward(mixed.view_as(x), x, mean, r, None, *sizes, only)[0].view(groups)
        length = (of_groups * by_x.view(groups)).mean(2, keepdim=True) * r_of
        by_input = by_input.addcmul_(normal, length).neg_().view_as(x)
        by_g = _backward(v, x, mean, r, None, *sizes, only)[0]
        by_weight = None if weight is None else (g * by_g).sum([0, *range(2, x.ndim)])
        return by_g if weight is None else by_g * _channels(weight, x), by_input, by_weight, *rest


def _channels(weight: Tensor, x: Tensor) -> Tensor:
    return weight.view(-1, *(1,) * (x.ndim - 2))


def _by_torch(ctx: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return the same by torch's plain steps, which can be differentiated again and have those by weights."""
    given: list[Any] = [*ctx.saved_tensors[:4]]
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, so that differentiation stops here.
        g, x, weight, bias = given = [
            t if t is None else (t.view_as(t) if t.requires_grad else t.detach().requires_grad_()) for t in given
        ]
        by = [t for t in (x, weight, bias) if t is not None]
        y = torch.group_norm(x, ctx.sizes[3], weight, bias, ctx.eps)
        found = iter(torch.autograd.grad(y, by, g, create_graph=True))
        pairs = [(next(found) if t is not None else None, v) for t, v in zip((x, weight, bias), gradients, strict=True)]
        pairs = [(slope, v) for slope, v in pairs if slope is not None and v is not None]
        total = torch.stack([(slope * v).sum() for slope, v in pairs]).sum()
        wanted = [t for t in (g, x, weight) if t is not None]
        second = iter(torch.autograd.grad(total, wanted, create_graph=again, allow_unused=True))
        return tuple(None if t is None else next(second) for t in (g, x, weight))
