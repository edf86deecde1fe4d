"""The distance between the domains' gradient variances of a linear head, storing neither gradients nor variances.

The per-sample gradient of a linear layer is the outer product δ ⊗ z, so a domain's moments are two matrix
products. Here they are made for a block of classes at a time, turned at once into their part of the distance,
and dropped; the backward pass makes them again. Memory follows the batch, not domains × classes × features, and
each block is read while it is still in cache. ``linear_moments`` and ``distance_to_mean`` are the same in plain
steps, and what a second derivative goes through.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional

from fishr.errors import InputError
from fishr.types import check_sizes

# Elements of a block (domains × classes × features), and of the rows (samples × features) that are read for it at a
# time: measured best on a CPU; a GPU wants few large kernels.
_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
_ROWS = {"cpu": 1 << 19, "cuda": 1 << 26}


@frozen
class GapRule:
    """Which distance: scale · Σ_e ‖v̂_e − mean v̂‖² with v̂ = gain·v + memory_gain·memory.

    Args:
        centered: v is the variance; otherwise the second moment.
        unbiased: v is divided by n−1 instead of n.
        gain: factor on the batch's statistic.
        memory_gain: factor on the remembered statistic.
        keep: factor on v̂ in the memory that is returned.
        scale: factor on the sum of squares.
        bias: the head has a bias: P = C·F + C, otherwise C·F.

    Example:
        >>> GapRule(scale=0.5).centered
        True
    """

    centered: bool = True
    unbiased: bool = False
    gain: float = 1.0
    memory_gain: float = 0.0
    keep: float = 1.0
    scale: float = 1.0
    bias: bool = True


def linear_gap(
    deltas: Tensor, features: Tensor, sizes: tuple[int, ...], rule: GapRule, memory: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Distance of a linear head's per-domain gradient statistic to its mean over domains.

    Args:
        deltas: [N, C], δ = ∂ℓ/∂logits of the unscaled per-sample loss.
        features: [N, F], what the head read.
        sizes: samples of each domain; uneven ones are padded with zero rows.
        rule: which distance.
        memory: [K, P] remembered statistic without a graph, or None.

    Returns:
        The distance (0-dim, (loss/parameter)⁴, differentiable by deltas and features) and, with a memory, the next one:
        keep·v̂ [K, P] without a graph.

    Raises:
        InputError: the sizes do not fit the rows, or a domain has one sample and the variance is to be unbiased.

    Example:
        >>> deltas, features = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), torch.ones(4, 1)
        >>> value, _ = linear_gap(deltas, features, (2, 2), GapRule())
        >>> value  # the variances are 1 and 4 for the weight and again for the bias
        tensor(9.)
    """
    check_sizes(sizes, len(features))
    if rule.unbiased and min(sizes) < 2:
        raise InputError(f"sizes: got {sizes}, expected at least 2 samples in every domain for the unbiased variance")
    with torch.autocast(features.device.type, enabled=False):
        value, remembered, *_ = _LinearGap.apply(deltas, features, memory, rule, sizes)  # pyright: ignore
    return value, None if memory is None else remembered


class _LinearGap(torch.autograd.Function):
    @staticmethod
    def forward(
        deltas: Tensor, features: Tensor, memory: Tensor | None, rule: GapRule, sizes: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        deltas, features = _by_domain(deltas, sizes), _by_domain(features, sizes)
        value = features.new_zeros(())
        remembered = features.new_empty(0) if memory is None else torch.empty_like(memory)
        kept = [features.new_empty(0)] * 2
        for part, classes, columns in _blocks(deltas, features, rule):
            block = None if memory is None else (memory[:, columns], remembered[:, columns])
            mean, gap = _mean_and_gap(deltas[:, :, classes], part, rule, sizes, block)
            value += torch.dot(gap.flatten(), gap.flatten())
            if part is features and gap.shape[1] == deltas.shape[2]:
                # All classes in one block: small enough to be kept for the backward pass.
                kept = [gap.new_empty(0) if mean is None else mean, gap]
        return value * rule.scale, remembered, *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        deltas, features, memory, ctx.rule, ctx.sizes = inputs
        _, remembered, mean, gap = output
        ctx.mark_non_differentiable(remembered, mean, gap)
        ctx.save_for_backward(deltas, features, memory, mean, gap)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        def take(index: int) -> list[Any]:
            return [x.select(dim, index) if isinstance(dim, int) else x for x, dim in zip(inputs, in_dims, strict=True)]

        # One head after the other keeps each block in cache.
        heads = [_LinearGap.apply(*take(i)) for i in range(info.batch_size)]  # pyright: ignore
        outputs = tuple(torch.stack(each) for each in zip(*heads, strict=True))  # pyright: ignore
        return outputs, (0,) * len(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        deltas, features, memory, *kept = ctx.saved_tensors
        with torch.autocast(features.device.type, enabled=False):
            if torch.is_grad_enabled():
                by_rows = _differentiable_backward(deltas, features, memory, ctx.rule, ctx.sizes, gradients[0])
            else:
                wanted = ctx.needs_input_grad[1]
                by_rows = _fused_backward(deltas, features, memory, ctx.rule, ctx.sizes, kept, gradients[0], wanted)
        return *by_rows, None, None, None


def _fused_backward(
    deltas: Tensor,
    features: Tensor,
    memory: Tensor | None,
    rule: GapRule,
    sizes: tuple[int, ...],
    kept: list[Tensor],
    gradient: Tensor,
    by_features: bool,
) -> tuple[Tensor, Tensor | None]:
    """The derivative by deltas and, unless they are frozen, features, block by block as in the forward pass."""
    # Autograd adds another gradient to one in place unless it is a view, so what is returned has rooms of its own.
    rooms = torch.zeros_like(deltas), torch.empty_like(features) if by_features else None
    deltas, features = _by_domain(deltas, sizes), _by_domain(features, sizes)
    to_deltas, to_features = (None if room is None else _by_domain(room, sizes) for room in rooms)
    assert to_deltas is not None
    # ∂value/∂second moment = 2·scale·gain·factor·gap, and each sum is over n samples of δ²z² (hence 4) and δz.
    weight = 4 * rule.scale * gradient * _gains(rule, sizes, features) * _inverse(sizes, features)
    for part, classes, columns in _blocks(deltas, features, rule):
        if part is features and kept[1].numel():
            mean, gap = kept[0].clone() if rule.centered else None, kept[1].clone()
        else:
            block = None if memory is None else (memory[:, columns], None)
            mean, gap = _mean_and_gap(deltas[:, :, classes], part, rule, sizes, block)
        gap *= weight
        if mean is not None:
            mean.mul_(gap).neg_()
        for domains, rows in _row_chunks(part):
            delta, z, scale = deltas[domains, rows, classes], part[domains, rows], gap[domains]
            through = torch.bmm(z * z, scale.mT).mul_(delta)
            to_deltas[domains, rows, classes] += through if mean is None else through.baddbmm_(z, mean[domains].mT)
            if to_features is not None and part is features:
                to_z, through = to_features[domains, rows], torch.bmm(delta * delta, scale)
                torch.mul(through, z, out=to_z) if classes.start == 0 else to_z.addcmul_(through, z)
                if mean is not None:
                    to_z.baddbmm_(delta, mean[domains])
    if len(set(sizes)) == 1:
        return rooms
    return _by_sample(to_deltas, sizes), None if to_features is None else _by_sample(to_features, sizes)


def _by_domain(rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """[N, D] as [K, n, D] with n the largest domain; zero rows add nothing to any sum of δ ⊗ z."""
    if len(set(sizes)) == 1:
        return rows.unflatten(0, (len(sizes), sizes[0]))
    longest = max(sizes)
    return torch.stack([functional.pad(part, (0, 0, 0, longest - len(part))) for part in rows.split(sizes)])


def _by_sample(domains: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """[K, n, D] as [N, D], the padding cut off."""
    return torch.cat([domain[:size] for domain, size in zip(domains, sizes, strict=True)])


def _blocks(deltas: Tensor, features: Tensor, rule: GapRule) -> Iterator[tuple[Tensor, slice, slice]]:
    """What δ is multiplied with, a block's classes and its columns in a [K, P] statistic; the bias reads ones."""
    (domains, samples, outputs), width = deltas.shape, features.shape[2]
    step = max(1, _BLOCK.get(features.device.type, _BLOCK["cuda"]) // (domains * width))
    for start in range(0, outputs, step):
        stop = min(start + step, outputs)
        yield features, slice(start, stop), slice(start * width, stop * width)
    if rule.bias:
        ones = features.new_ones(1, 1, 1).expand(domains, samples, 1)
        yield ones, slice(0, outputs), slice(outputs * width, outputs * (width + 1))


def _row_chunks(part: Tensor) -> Iterator[tuple[slice, slice]]:
    """Domains and rows to read at a time: all at once if they are few, else some rows of one domain."""
    domains, samples, width = part.shape
    budget = _ROWS.get(part.device.type, _ROWS["cuda"])
    if part.numel() <= budget:
        yield slice(0, domains), slice(0, samples)
        return
    step = max(1, budget // width)
    for domain in range(domains):
        for start in range(0, samples, step):
            yield slice(domain, domain + 1), slice(start, start + step)


def _mean_and_gap(
    deltas: Tensor,
    part: Tensor,
    rule: GapRule,
    sizes: tuple[int, ...],
    memory: tuple[Tensor, Tensor | None] | None,
) -> tuple[Tensor | None, Tensor]:
    """Mean gradient [K, c, F] (None if v does not read it) and v̂ − mean over domains of v̂ [K, c, F] of one block."""
    shape = (part.shape[0], deltas.shape[2], part.shape[2])
    gap = part.new_zeros(shape)
    mean = part.new_zeros(shape) if rule.centered else None
    for domains, rows in _row_chunks(part):
        delta, z = deltas[domains, rows], part[domains, rows]
        gap[domains].baddbmm_((delta * delta).mT, z * z)
        if mean is not None:
            mean[domains].baddbmm_(delta.mT, z)
    inverse = _inverse(sizes, part)
    gap *= inverse
    if mean is not None:
        mean *= inverse
        gap.addcmul_(mean, mean, value=-1)
    gap *= _gains(rule, sizes, part)
    if memory is not None:
        before, after = memory
        gap.add_(before.unflatten(1, shape[1:]), alpha=rule.memory_gain)
        if after is not None:
            torch.mul(gap.flatten(1), rule.keep, out=after)
    return mean, gap.sub_(gap.mean(0))


def _inverse(sizes: Sequence[int], like: Tensor) -> Tensor:
    """1/n of each domain, [K, 1, 1]."""
    return like.new_tensor([1 / n for n in sizes])[:, None, None]


def _gains(rule: GapRule, sizes: Sequence[int], like: Tensor) -> Tensor:
    """Factor on each domain's statistic, [K, 1, 1]."""
    return like.new_tensor([rule.gain * (n / (n - 1) if rule.unbiased else 1.0) for n in sizes])[:, None, None]


def _differentiable_backward(
    deltas: Tensor,
    features: Tensor,
    memory: Tensor | None,
    rule: GapRule,
    sizes: tuple[int, ...],
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same derivative by plain differentiable steps, for second derivatives."""
    inverse, gains = _inverse(sizes, features), _gains(rule, sizes, features)[:, 0]

    def value(deltas: Tensor, features: Tensor) -> Tensor:
        deltas, features = _by_domain(deltas, sizes), _by_domain(features, sizes)
        parts = [features, torch.ones_like(features[:, :, :1])] if rule.bias else [features]
        statistic = torch.cat([((deltas**2).mT @ part**2 * inverse).flatten(1) for part in parts], 1)
        if rule.centered:
            statistic = statistic - torch.cat([(deltas.mT @ part * inverse).flatten(1) for part in parts], 1) ** 2
        statistic = statistic * gains if memory is None else statistic * gains + rule.memory_gain * memory
        return rule.scale * (statistic - statistic.mean(0)).square().sum()

    return torch.func.vjp(value, deltas, features)[1](gradient)
