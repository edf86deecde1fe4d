"""Per-domain moments of per-sample gradients that are computed a few samples at a time, forward and backward.

One chunk of per-sample gradients exists at a time: the forward pass reduces and drops it, the backward pass computes
it again. Only its inputs, the batch's activations, stay in memory. With v = (1/n) Σ (g_i − m)², the derivative by g_i
is (∂m + 2·∂v·(g_i − m))/n, so one more pass over the chunks is enough.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from fishr.statistics.merge import by_domain, equal_domains, joined, moments_of_samples

SampleGradients = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]


@frozen(eq=False)
class Chunking:
    """How per-sample gradients are computed and summed."""

    gradients: SampleGradients
    sizes: tuple[int, ...]
    step: int
    dtype: torch.dtype
    random: bool = False


def chunked_moments(plan: Chunking, rows: Sequence[Tensor], shared: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
    """Return mean and variance [K, ...] per domain, differentiable by ``rows``, each [N, ...], and ``shared``."""
    return _ChunkedMoments.apply(plan, len(rows), *rows, *shared)  # pyright: ignore


class _ChunkedMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Chunking, count: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.plan, ctx.count = plan, count
        ctx.set_materialize_grads(False)
        ctx.draws = (torch.get_rng_state(), *get_device_states(*tensors)) if plan.random else None
        mean, variance = _moments(plan, tensors[:count], tensors[count:])
        ctx.save_for_backward(mean, *tensors)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        mean, *tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[2:]
        with torch.autocast(mean.device.type, enabled=False), _same_draws(ctx.draws, mean.device):
            if torch.is_grad_enabled():
                return None, None, *_differentiable_backward(ctx.plan, ctx.count, tensors, needed, gradients)
            return None, None, *_chunked_backward(ctx.plan, ctx.count, mean, tensors, needed, gradients)


def _moments(plan: Chunking, rows: Sequence[Tensor], shared: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    def gradients(domains: slice, chunks: list[slice]) -> Iterator[Tensor]:
        for chunk in chunks:
            yield by_domain(plan.gradients([t[chunk] for t in rows], shared).to(plan.dtype), domains)

    return joined(moments_of_samples(gradients(*block)) for block in equal_domains(plan.sizes, plan.step))


def _chunked_backward(
    plan: Chunking,
    count: int,
    mean: Tensor,
    tensors: Sequence[Tensor],
    needed: Sequence[bool],
    gradients: Sequence[Tensor | None],
) -> list[Tensor | None]:
    found = [list[Tensor]() for _ in tensors]
    by_mean, by_variance = gradients
    for domains, chunks in equal_domains(plan.sizes, plan.step):
        size = plan.sizes[domains.start]
        # The gradient by a sample's g is scale·g + shift.
        scale = torch.zeros_like(mean[domains]) if by_variance is None else by_variance[domains] * (2 / size)
        shift = (mean[domains] * scale).neg_()
        if by_mean is not None:
            shift.add_(by_mean[domains], alpha=1 / size)
        for chunk in chunks:
            with torch.enable_grad():
                parts = [t[chunk] if i < count else t for i, t in enumerate(tensors)]
                parts = [t.detach().requires_grad_(need) for t, need in zip(parts, needed, strict=True)]
                made = plan.gradients(parts[:count], parts[count:]).to(plan.dtype)
            upstream = torch.addcmul(shift.unsqueeze(1), by_domain(made.detach(), domains), scale.unsqueeze(1))
            inputs, upstream = [part for part in parts if part.requires_grad], upstream.flatten(0, 1)
            by_part = iter(torch.autograd.grad(made, inputs, upstream, allow_unused=True, materialize_grads=True))
            for i, part in enumerate(parts):
                if part.requires_grad:
                    # Each chunk has rows of its own; shared tensors add up.
                    by = next(by_part)
                    found[i] = [found[i][0] + by] if i >= count and found[i] else [*found[i], by]
    return [None if not parts else parts[0] if len(parts) == 1 else torch.cat(parts) for parts in found]


def _differentiable_backward(
    plan: Chunking, count: int, tensors: Sequence[Tensor], needed: Sequence[bool], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """Return the same gradients by plain differentiable steps, for second derivatives."""
    # Views, so that differentiation stops here and not at the tensors' own inputs.
    here = [t.view_as(t) if need else t for t, need in zip(tensors, needed, strict=True)]
    moments = _moments(plan, here[:count], here[count:])
    inputs = [t for t, need in zip(here, needed, strict=True) if need]
    upstream = [torch.zeros_like(moments[0]) if g is None else g for g in gradients]
    found = iter(torch.autograd.grad(moments, inputs, upstream, create_graph=True, allow_unused=True))
    return [next(found) if need else None for need in needed]


@contextmanager
def _same_draws(draws: tuple[Tensor, list[int], list[Tensor]] | None, device: torch.device) -> Generator[None]:
    """Repeat earlier draws within the context, and leave the generators outside as they are."""
    if draws is None:
        yield
        return
    state, devices, states = draws
    kind = device.type if devices else "cuda"
    with torch.random.fork_rng(devices, device_type=kind):
        torch.set_rng_state(state)
        set_device_states(devices, states, device_type=kind)
        yield
