"""Distance between the domains' gradient variances of linear layers, storing neither gradients nor variances.

The per-sample gradient of a linear layer is the outer product δ ⊗ z, so a domain's moments are two matrix products.
They are computed for a block of classes and features at a time, added to the distance while in cache, and overwritten
by the next block; the backward pass computes them again. Memory follows the batch, not domains × classes × features.
Factors that differ by domain multiply the rows, which are few. Of several ranks each sends its sums, or its rows where
they are fewer. ``linear_moments`` and ``distance_to_mean`` are the same in plain steps.
"""

import threading
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.ranks import ALONE, Ranks, add_over_ranks, counts_of_ranks, domains_of_ranks, sum_over_ranks
from fishr.row_checks import check_sizes
from fishr.statistics.distances import distance_to_mean, divisor
from fishr.statistics.gap_samples import Samples
from fishr.statistics.linear_heads import Factors, linear_moments
from fishr.statistics.merge import moments_over_ranks, with_missing

# Elements of a block (domains × classes × features), and of the rows (samples × features) read for it at a time:
# measured best on a CPU; a GPU wants few large kernels.
_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
_ROWS = {"cpu": 1 << 19, "cuda": 1 << 26}
# Least classes and features of a block: reading its inputs must cost little beside its products.
_SIDE = 128
# Memory for intermediate results that a thread uses again in its next call.
_OF_THREAD = threading.local()


@traceable
@frozen
class GapRule:
    """Settings of ``stack_gap``: scale · Σ_e ‖v̂_e − mean v̂‖² with v̂ = gain·v + memory_gain·memory."""

    # v is the variance, divided by n−1 if `unbiased`, or the second moment if not `centered`; `keep` multiplies v̂ in
    # the next memory; `scale_free` divides by ‖mean v̂‖².

    centered: bool = True
    unbiased: bool = False
    gain: float = 1.0
    memory_gain: float = 0.0
    keep: float = field(default=1.0, validator=number(above=True))
    scale: float = 1.0
    scale_free: bool = False


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
    with torch.autocast(factors[0].inputs.device.type, enabled=False):
        parts = [
            _layer_gap(layer, part, rule, sizes, everyone, ranks) for layer, part in zip(factors, own, strict=True)
        ]
    (value, square, _), *others = parts
    for more, more_square, _ in others:
        value, square = value + more, square + more_square
    if rule.scale_free:
        value = value / divisor(square)
    remembered = [part[2] for part in parts]
    if memory is None:
        return value, None
    return value, remembered[0] if len(remembered) == 1 else torch.cat(remembered, 1)


def _layer_gap(
    layer: Factors,
    memory: Tensor | None,
    rule: GapRule,
    sizes: tuple[int, ...],
    everyone: Sequence[tuple[int, ...]],
    ranks: Ranks,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distance, if it is scale-free the squared norm to divide it by, and the next memory, of a layer."""
    deltas, inputs, bias = layer
    totals = tuple(map(sum, zip(*everyone, strict=True)))
    if not ranks.alone and _gathers(totals, deltas.shape[1], inputs.shape[1]):
        deltas, inputs = (domains_of_ranks(rows, everyone, ranks) for rows in (deltas, inputs))
        sizes, ranks = totals, ALONE
    value, square, remembered, *_ = _LayerGap.apply(deltas, inputs, memory, rule, bias, Samples(sizes, totals, ranks))  # pyright: ignore
    return value, square, remembered


def _gathers(totals: tuple[int, ...], outputs: int, width: int) -> bool:
    """Return whether all ranks' rows have fewer elements than the two sums over samples."""
    return sum(totals) * (outputs + width) < 2 * len(totals) * outputs * width


@traceable
@frozen(eq=False)
class _Block:
    """Some classes' δ [K, n, c], features z [K, n, f], their place in [K, P], and an output buffer [·, K, c, f]."""

    # `squares` is z², or None where `chunks` reads some rows of one domain at a time.

    deltas: Tensor
    part: Tensor
    squares: Tensor | None
    chunks: list[tuple[slice, slice]]
    classes: slice
    features: slice
    start: int
    whole: tuple[int, int]
    out: Tensor

    def of(self, statistic: Tensor) -> Tensor:
        """Return this block's entries [K, c, f] of a statistic [K, P]."""
        outputs, width = self.whole
        entries = statistic[:, self.start : self.start + outputs * width].unflatten(1, self.whole)
        return entries[:, self.classes, self.features]

    @property
    def bias(self) -> bool:
        return self.start > 0


def _blocks(deltas: Tensor, features: Tensor, rule: GapRule, bias: bool) -> Iterator[_Block]:
    """Yield blocks of the weight, of all classes if they are few, in one buffer; then the bias, whose inputs are 1."""
    (domains, samples, outputs), width = deltas.shape, features.shape[2]
    device, layers = features.device.type, 1 + rule.centered
    rows = _ROWS.get(device, _ROWS["cuda"])
    area = _BLOCK.get(device, _BLOCK["cuda"]) // domains
    across = min(width, max(_SIDE, area // outputs))
    step = min(outputs, max(_SIDE, area // across))
    everything = [(slice(0, domains), slice(0, samples))]
    elements = layers * domains * step * across
    # The only block of a weight is kept for the backward pass.
    buffer = features.new_empty(elements) if (step, across) == (outputs, width) else workspace(features, elements)
    for left in range(0, width, across):
        columns = slice(left, min(left + across, width))
        part = features[:, :, columns]
        squares, chunks = part * part if part.numel() <= rows else None, everything
        if squares is None:
            some = max(1, rows // part.shape[2])
            starts = range(0, samples, some)
            chunks = [(slice(k, k + 1), slice(start, start + some)) for k in range(domains) for start in starts]
        for top in range(0, outputs, step):
            classes = slice(top, min(top + step, outputs))
            shape = (layers, domains, classes.stop - classes.start, columns.stop - columns.start)
            out = buffer[: prod(shape)].view(shape)
            yield _Block(deltas[:, :, classes], part, squares, chunks, classes, columns, 0, (outputs, width), out)
    if bias:
        ones, whole = features.new_ones(1, 1, 1).expand(domains, samples, 1), (outputs, 1)
        # A buffer of its own: the only block of the weight may be kept.
        out = features.new_empty(layers, domains, *whole)
        yield _Block(deltas, ones, ones, everything, slice(0, outputs), slice(0, 1), outputs * width, whole, out)


def workspace(like: Tensor, elements: int) -> Tensor:
    """Return uninitialized memory [elements] of a tensor's type and device, until the thread's next call."""
    # On a CPU the system clears each fresh page before its first use, which takes longer than a product writes it; a
    # GPU has an allocator that keeps what is freed.
    if type(like) is not Tensor or like.device.type != "cpu":
        return like.new_empty(elements)
    held: dict[torch.dtype, Tensor] = vars(_OF_THREAD).setdefault("held", {})
    known = held.get(like.dtype)
    if known is None or len(known) < elements:
        # One of inference mode could not be written outside of it.
        with torch.inference_mode(False):
            known = held[like.dtype] = torch.empty(elements, dtype=like.dtype)
    return known[:elements]


def _sums(
    block: _Block, rule: GapRule, samples: Samples, alpha: Tensor, beta: Tensor, remembered: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return gain·v [K, c, f], or v̂ if remembered, and Σ β δz (None if v does not need it), in the block's buffer."""
    gap, mean = block.out[0], block.out[1] if rule.centered else None
    known = remembered is not None and remembered.numel() > 0
    for domains, rows in block.chunks:
        delta, z, first = block.deltas[domains, rows], block.part[domains, rows], float(rows.start > 0)
        if not known:
            squares = z * z if block.squares is None else block.squares
            gap[domains].baddbmm_((delta * delta).mul_(alpha[domains]).mT, squares, beta=first)
        if mean is not None:
            mean[domains].baddbmm_((delta * beta[domains]).mT, z, beta=first)
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
        for block in _blocks(deltas, features, rule, bias):
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
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        deltas, features, memory, *before = ctx.saved_tensors
        rule, samples = ctx.rule, ctx.samples
        with torch.autocast(features.device.type, enabled=False):
            if torch.is_grad_enabled():
                by_rows = _differentiable_backward(deltas, features, memory, rule, ctx.bias, samples, gradients[:2])
            else:
                # The ranks' objectives are summed, and each of them reads the same values.
                read = gradients[: 1 + rule.scale_free]
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
    # A scale-free distance has its weight in the gap.
    outer = 1.0 if rule.scale_free else weight
    to_squares, to_means = outer * alpha, -rule.gain * outer * beta
    for block in _blocks(deltas, features, rule, bias):
        kept = kept_gap.numel() > 0 and not block.bias
        if kept:
            gap, mean, center = kept_gap, kept_mean if rule.centered else None, kept_center
        else:
            gap, mean = _sums(block, rule, samples, alpha, beta, remembered)
            center = gap.mean(0)
            gap.sub_(center)
        if rule.scale_free:
            # ∂‖mean v̂‖²/∂v̂ = 2·mean/K.
            gap = (gap * weight).add_(center * (4 / len(samples.sizes) * gradients[1]))
        through_mean = None if mean is None else (mean * gap if kept else mean.mul_(gap))
        for domains, rows in block.chunks:
            delta, z = block.deltas[domains, rows], block.part[domains, rows]
            a, b = to_squares[domains], to_means[domains]
            squares = z * z if block.squares is None else block.squares
            to_delta = torch.bmm(squares, gap[domains].mT).mul_(delta).mul_(a)
            if through_mean is not None:
                to_delta.addcmul_(torch.bmm(z, through_mean[domains].mT), b)
            to_deltas[domains, rows, block.classes] += to_delta
            if to_features is not None and not block.bias:
                to_z = to_features[domains, rows, block.features]
                through = torch.bmm((delta * delta).mul_(a), gap[domains])
                torch.mul(through, z, out=to_z) if block.classes.start == 0 else to_z.addcmul_(through, z)
                if through_mean is not None:
                    to_z.baddbmm_(delta * b, through_mean[domains])
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

    return torch.func.vjp(values, deltas, features)[1](gradients)
