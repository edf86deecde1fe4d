"""The distance between the domains' gradient variances of a linear head, storing neither gradients nor variances.

The per-sample gradient of a linear layer is the outer product δ ⊗ z, so a domain's moments are two matrix
products. Here they are made for a block of classes at a time, turned at once into their part of the distance,
and dropped; the backward pass makes them again. Memory follows the batch, not domains × classes × features, and
each block is read while it is still in cache. Of several ranks each sends its sums, or its rows where they are fewer.
``linear_moments`` and ``distance_to_mean`` are the same in plain steps.
"""

from typing import Any

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.ranks import ALONE, Ranks, counts_of_ranks, domains_of_ranks, sum_over_ranks
from fishr.statistics.gap_blocks import GapRule, Samples, Sweep, sweep_backward, sweep_forward
from fishr.types import check_sizes

__all__ = ["GapRule", "linear_gap"]


def linear_gap(
    deltas: Tensor,
    features: Tensor,
    sizes: tuple[int, ...],
    rule: GapRule,
    memory: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor | None]:
    """Distance of a linear head's per-domain gradient statistic to its mean over domains.

    Args:
        deltas: [N, C], δ = ∂ℓ/∂logits of the unscaled per-sample loss, of this rank's samples.
        features: [N, F], what the head read of them.
        sizes: this rank's samples of each domain; uneven ones are padded with zero rows.
        rule: which distance.
        memory: [K, P] remembered statistic without a graph, the same on all ranks, or None.
        ranks: the processes whose samples belong together; all of them must call, and differentiate alike.

    Returns:
        The distance (0-dim, (loss/parameter)⁴, differentiable by deltas and features any number of times) and, with a
        memory, the next one: keep·v̂ [K, P] without a graph. The same on all ranks, and that of one process on all
        samples; what is differentiated is the sum of the ranks' objectives.

    Raises:
        InputError: the sizes do not fit the rows, or a domain has one sample and the variance is to be unbiased.
        RankLost: a rank is gone.

    Example:
        >>> deltas, features = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), torch.ones(4, 1)
        >>> value, _ = linear_gap(deltas, features, (2, 2), GapRule())
        >>> value  # the variances are 1 and 4 for the weight and again for the bias
        tensor(9.)
    """
    sizes = check_sizes(sizes, len(features))
    everyone = counts_of_ranks(sizes, ranks)
    totals = tuple(map(sum, zip(*everyone, strict=True)))
    if rule.unbiased and min(totals) < 2:
        raise InputError(f"sizes: got {totals}, expected at least 2 samples in every domain for the unbiased variance")
    with torch.autocast(features.device.type, enabled=False):
        if not ranks.alone and _gathers(totals, deltas.shape[1], features.shape[1]):
            deltas, features = (domains_of_ranks(rows, everyone, ranks) for rows in (deltas, features))
            sizes, ranks = totals, ALONE
        value, remembered, *_ = _LinearGap.apply(deltas, features, memory, rule, Samples(sizes, totals, ranks))  # pyright: ignore
    return value, None if memory is None else remembered


def _gathers(totals: tuple[int, ...], outputs: int, width: int) -> bool:
    """Whether all ranks' rows are fewer numbers than the two sums over samples that ranks would send otherwise."""
    return sum(totals) * (outputs + width) < 2 * len(totals) * outputs * width


class _LinearGap(torch.autograd.Function):
    @staticmethod
    def forward(
        deltas: Tensor, features: Tensor, memory: Tensor | None, rule: GapRule, samples: Samples
    ) -> tuple[Tensor, ...]:
        swept = sweep_forward(deltas, features, memory, rule, samples)
        return swept.value * rule.scale, swept.remembered, swept.gap, swept.mean

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        deltas, features, memory, ctx.rule, ctx.samples = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(deltas, features, memory, *output)

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
        deltas, features, memory, *swept = ctx.saved_tensors
        rule, samples = ctx.rule, ctx.samples
        with torch.autocast(features.device.type, enabled=False):
            # What is differentiated is the sum of the ranks' objectives, each of which reads the same value.
            gradient = sum_over_ranks(gradients[0], samples.ranks)
            if torch.is_grad_enabled():
                by_rows = _differentiable_backward(deltas, features, memory, rule, samples, gradient)
            else:
                wanted = ctx.needs_input_grad[1]
                by_rows = sweep_backward(deltas, features, Sweep(*swept), rule, samples, gradient, wanted)
        return *by_rows, None, None, None


def _differentiable_backward(
    deltas: Tensor,
    features: Tensor,
    memory: Tensor | None,
    rule: GapRule,
    samples: Samples,
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same derivative by plain differentiable steps, for second derivatives."""
    deltas, features = samples.by_domain(deltas), samples.by_domain(features)
    alpha, beta = samples.weights(rule, features)
    weight, squares, start = 4 * rule.scale * gradient, deltas**2, 0
    to_deltas, to_features = torch.zeros_like(deltas), torch.zeros_like(features)
    for part in [features, torch.ones_like(features[:, :, :1])] if rule.bias else [features]:
        statistic = sum_over_ranks((alpha * squares).mT @ part**2, samples.ranks)
        mean = sum_over_ranks((beta * deltas).mT @ part, samples.ranks) if rule.centered else None
        if mean is not None:
            statistic = statistic - rule.gain * mean**2
        if memory is not None:
            columns = slice(start, start + statistic[0].numel())
            statistic = statistic + rule.memory_gain * memory[:, columns].view_as(statistic)
            start = columns.stop
        gap = weight * (statistic - statistic.mean(0))
        to_deltas = to_deltas + alpha * deltas * (part**2 @ gap.mT)
        to_part = part * (alpha * squares @ gap)
        if mean is not None:
            through_mean = -rule.gain * beta * mean * gap
            to_deltas = to_deltas + part @ through_mean.mT
            to_part = to_part + deltas @ through_mean
        to_features = to_features + to_part if part is features else to_features
    return samples.by_sample(to_deltas), samples.by_sample(to_features)
