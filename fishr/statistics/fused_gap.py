"""Distance between the domains' gradient variances of linear layers, storing neither gradients nor variances.

The per-sample gradient of a linear layer is the outer product δ ⊗ z, so a domain's moments are two matrix products.
They are computed for a block of classes and features at a time, added to the distance while in cache, and overwritten
by the next block; the backward pass computes them again. Memory follows the batch, not domains × classes × features.
Factors that differ by domain multiply the rows, which are few. Of several ranks each sends its sums, or its rows where
they are fewer. ``linear_moments`` and ``distance_to_mean`` are the same in plain steps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.matrix_products import batched_matmul, matmul_into
from fishr.ranks import ALONE, Ranks, add_over_ranks, counts_of_ranks, domains_of_ranks, sum_over_ranks
from fishr.row_checks import check_sizes
from fishr.statistics.distances import distance_to_mean, divisor
from fishr.statistics.gap_blocks import Block, GapRule, Samples, blocks
from fishr.statistics.linear_heads import Factors, linear_moments
from fishr.statistics.merge import moments_over_ranks, with_missing


def stack_gap(
    factors: Sequence[Factors],
    sizes: tuple[int, ...],
    rule: GapRule,
    memory: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor | None]:
    """Return the distance (0-dim) of linear layers' gradient statistic to its mean, and the next memory, keep·v̂."""
    # `factors` have this rank's rows, `memory` [K, P] is the same on all ranks. The value is that of one process on all
    # samples; the backward pass differentiates the sum of the ranks' objectives. A rank may have no sample of a domain.
    sizes = check_sizes(sizes, len(factors[0].inputs), least=0)
    everyone = counts_of_ranks(sizes, ranks)
    totals = tuple(map(sum, zip(*everyone, strict=True)))
    check_sizes(totals, sum(totals))
    if rule.unbiased and min(totals) < 2:
        raise InputError(
            f"sizes: got {totals}, expected at least 2 samples in every domain for the unbiased variance; draw more "
            "samples of each, or divide by n (unbiased=False)"
        )
    own = (None,) * len(factors) if memory is None else memory.split([layer.size for layer in factors], 1)
    value = square = factors[0].inputs.new_zeros(())
    remembered, samples = list[Tensor](), Samples(sizes, totals, ranks)
    with torch.autocast(square.device.type, enabled=False):
        for (deltas, inputs, bias), part in zip(factors, own, strict=True):
            rows, of_layer = (deltas, inputs), samples
            if not ranks.alone and _gathers(totals, deltas.shape[1], inputs.shape[1]):
                rows = tuple(domains_of_ranks(each, everyone, ranks) for each in rows)
                of_layer = Samples(totals, totals, ALONE)
            found = _LayerGap.apply(*rows, part, rule, bias, of_layer)  # pyright: ignore
            value, square = value + found[0], square + found[1]
            remembered.append(found[2])
    if rule.scale_free:
        value = value / divisor(square)
    if memory is None:
        return value, None
    return value, remembered[0] if len(remembered) == 1 else torch.cat(remembered, 1)


def _gathers(totals: tuple[int, ...], outputs: int, width: int) -> bool:
    """Return whether all ranks' rows have fewer elements than the two sums over samples."""
    return sum(totals) * (outputs + width) < 2 * len(totals) * outputs * width


def _sums(
    block: Block, rule: GapRule, samples: Samples, alpha: Tensor, beta: Tensor, remembered: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return gain·v [K, c, f], or v̂ if remembered, and Σ β δz (None if v does not need it), in the block's buffer."""
    gap, mean = block.out[0], block.out[1] if rule.centered else None
    known = remembered is not None and remembered.numel() > 0
    for domains, rows in block.chunks:
        delta, z, more = block.deltas[domains, rows], block.part[domains, rows], rows.start > 0
        if not known:
            squares = z * z if block.squares is None else block.squares
            matmul_into(gap[domains], (delta * delta).mul_(alpha[domains]).mT, squares, more)
        if mean is not None:
            matmul_into(mean[domains], (delta * beta[domains]).mT, z, more)
    add_over_ranks(block.out[int(known) :], samples.ranks)
    if remembered is not None and known:
        torch.mul(block.of(remembered), 1 / rule.keep, out=gap)
    elif mean is not None:
        gap.addcmul_(mean, mean, value=-rule.gain)
    return gap, mean


def _square(statistic: Tensor) -> Tensor:
    return torch.dot(statistic.flatten(), statistic.flatten())


class _LayerGap(torch.autograd.Function):
    @staticmethod
    def forward(
        deltas: Tensor, features: Tensor, memory: Tensor | None, rule: GapRule, bias: bool, samples: Samples
    ) -> tuple[Tensor, ...]:
        """Return the distance, ‖mean v̂‖² or 0, keep·v̂ or nothing; and if the whole weight is a block, what it keeps."""
        deltas, features = samples.by_domain(deltas), samples.by_domain(features)
        alpha, beta = samples.weights(rule.gain, rule.unbiased, features)
        value = square = features.new_zeros(())
        remembered = features.new_empty(0 if memory is None else memory.shape)
        kept_gap = kept_mean = kept_center = features.new_empty(0)
        for block in blocks(deltas, features, rule, bias):
            gap, mean = _sums(block, rule, samples, alpha, beta)
            if memory is not None:
                gap.add_(block.of(memory), alpha=rule.memory_gain)
                torch.mul(gap, rule.keep, out=block.of(remembered))
            center = gap.mean(0)
            gap.sub_(center)
            value = value + _square(gap)
            if rule.scale_free:
                square = square + _square(center)
            if not block.bias and tuple(gap.shape[1:]) == block.whole:
                kept_gap, kept_mean = gap, kept_mean if mean is None else mean
                kept_center = center if rule.scale_free else kept_center
        return value * rule.scale, square, remembered, kept_gap, kept_mean, kept_center

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        deltas, features, memory, ctx.rule, ctx.bias, ctx.samples = inputs
        ctx.mark_non_differentiable(*output[1 + ctx.rule.scale_free :])
        # Otherwise autograd fills zeros of the size of what is kept.
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(deltas, features, memory, *output[2:])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Several heads, one after the other; a penalty takes plain steps instead."""
        heads = list[tuple[Tensor, ...]]()
        for head in range(info.batch_size):
            pairs = zip(inputs, in_dims, strict=False)
            own = (x if dim is None else x.select(dim, head) for x, dim in pairs)
            heads.append(_LayerGap.apply(*own))  # pyright: ignore
        return tuple(map(torch.stack, zip(*heads, strict=True))), (0,) * len(heads[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        deltas, features, memory, *before = ctx.saved_tensors
        rule, samples = ctx.rule, ctx.samples
        read = tuple(deltas.new_zeros(()) if each is None else each for each in gradients[: 1 + rule.scale_free])
        with torch.autocast(features.device.type, enabled=False):
            if torch.is_grad_enabled():
                by_rows = _differentiable_backward(deltas, features, memory, rule, ctx.bias, samples, read)
            else:
                # The ranks' objectives are summed, and each of them reads the same values.
                by_values = tuple(sum_over_ranks(gradient, samples.ranks) for gradient in read)
                by_features = ctx.needs_input_grad[1]
                by_rows = _backward(deltas, features, before, rule, ctx.bias, samples, by_values, by_features)
        return *by_rows, None, None, None, None


def _backward(
    deltas: Tensor,
    features: Tensor,
    before: list[Tensor],
    rule: GapRule,
    bias: bool,
    samples: Samples,
    gradients: tuple[Tensor, ...],
    by_features: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients by deltas [N, C] and, if asked for, by features [N, F]."""
    remembered, kept_gap, kept_mean, kept_center = before
    # Autograd adds another gradient to one in place unless it is a view, so both have storage of their own.
    out = torch.zeros_like(deltas), torch.empty_like(features) if by_features else None
    deltas, features = samples.by_domain(deltas), samples.by_domain(features)
    to_deltas, to_features = samples.by_domain(out[0]), None if out[1] is None else samples.by_domain(out[1])
    alpha, beta = samples.weights(rule.gain, rule.unbiased, features)
    # ∂value/∂v̂ = 2·gap; v̂ contains α δ²z², hence another 2, and the square of Σ β δz, hence one again.
    weight = 4 * rule.scale * gradients[0]
    to_squares, to_means = weight * alpha, -rule.gain * weight * beta
    shift = None
    if rule.scale_free:
        # ∂‖mean v̂‖²/∂v̂ = 2·mean/K, in units of the weight, without which both gradients are 0.
        shift = torch.where(weight == 0, 0.0, 4 / len(samples.sizes) * gradients[1] / weight)
    for block in blocks(deltas, features, rule, bias):
        kept = kept_gap.numel() > 0 and not block.bias
        if kept:
            gap, mean = kept_gap, kept_mean if rule.centered else None
            if shift is not None:
                gap = torch.addcmul(gap, kept_center, shift)
        else:
            gap, mean = _sums(block, rule, samples, alpha, beta, remembered)
            center = gap.mean(0)
            gap.sub_(center if shift is None else center * (1 - shift))
        through_mean = None if mean is None else (mean * gap if kept else mean.mul_(gap))
        for domains, rows in block.chunks:
            delta, z = block.deltas[domains, rows], block.part[domains, rows]
            a, b = to_squares[domains], to_means[domains]
            squares = z * z if block.squares is None else block.squares
            to_delta = batched_matmul(squares, gap[domains].mT).mul_(delta).mul_(a)
            if through_mean is not None:
                to_delta.addcmul_(batched_matmul(z, through_mean[domains].mT), b)
            to_deltas[domains, rows, block.classes] += to_delta
            if to_features is not None and not block.bias:
                to_z = to_features[domains, rows, block.features]
                through = batched_matmul((delta * delta).mul_(a), gap[domains])
                torch.mul(through, z, out=to_z) if block.classes.start == 0 else to_z.addcmul_(through, z)
                if through_mean is not None:
                    matmul_into(to_z, delta * b, through_mean[domains], True)
    if len(set(samples.sizes)) == 1:
        return out
    return samples.by_sample(to_deltas), None if to_features is None else samples.by_sample(to_features)


def _differentiable_backward(
    deltas: Tensor,
    features: Tensor,
    memory: Tensor | None,
    rule: GapRule,
    bias: bool,
    samples: Samples,
    gradients: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    """Return the same gradients through plain differentiable steps, for second derivatives."""

    def values(deltas: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        own = linear_moments(deltas, features, tuple(filter(None, samples.sizes)), bias)
        moments = moments_over_ranks(with_missing(own, samples.sizes), samples.ranks)
        centered = moments.unbiased_variance if rule.unbiased else moments.variance
        statistic = rule.gain * (centered if rule.centered else moments.second_moment)
        if memory is not None:
            statistic = statistic + rule.memory_gain * memory
        return rule.scale * distance_to_mean(statistic, "sum", "sum"), statistic.mean(0).square().sum()

    by_both = (*gradients, torch.zeros_like(gradients[0]))[:2]
    return torch.func.vjp(values, deltas, features)[1](by_both)
