"""The sweeps over a linear head's parameters that ``fused_gap`` is made of: the distance, and its gradients.

A block is what some classes and features of all domains have: their part of v̂, less its mean over domains, and of the
mean gradient. It is made by two matrix products, read while it is in cache, and overwritten by the next block. Factors
that differ by domain are put on the rows, which are few.
"""

from collections.abc import Iterator
from math import prod

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional

from fishr.errors import InputError
from fishr.ranks import Ranks, add_over_ranks

# Elements of a block (domains × classes × features), and of the rows (samples × features) that are read for it at a
# time: measured best on a CPU; a GPU wants few large kernels.
_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}
_ROWS = {"cpu": 1 << 19, "cuda": 1 << 26}
# Classes and features of a block at least: what is read for each block must stay little beside its products.
_SIDE = 128


def _check_keep(_: object, attribute: object, keep: float) -> None:
    if not keep > 0:
        raise InputError(f"keep: got {keep}, expected a factor above 0")


@frozen
class GapRule:
    """Which distance: scale · Σ_e ‖v̂_e − mean v̂‖² with v̂ = gain·v + memory_gain·memory.

    Args:
        centered: v is the variance; otherwise the second moment.
        unbiased: v is divided by n−1 instead of n.
        gain: factor on the batch's statistic.
        memory_gain: factor on the remembered statistic.
        keep: factor on v̂ in the memory that is returned, above 0.
        scale: factor on the sum of squares.
        bias: the head has a bias: P = C·F + C, otherwise C·F.

    Raises:
        InputError: keep is not above 0.

    Example:
        >>> GapRule(scale=0.5).centered
        True
    """

    centered: bool = True
    unbiased: bool = False
    gain: float = 1.0
    memory_gain: float = 0.0
    keep: float = field(default=1.0, validator=_check_keep)
    scale: float = 1.0
    bias: bool = True


@frozen(eq=False)
class Samples:
    """How many there are.

    Args:
        sizes: of each domain on this rank.
        totals: of each domain on all ranks.
        ranks: which those are.

    Example:
        >>> from fishr.ranks import ALONE
        >>> Samples((1, 2), (1, 2), ALONE).by_domain(torch.ones(3, 1)).flatten(1)
        tensor([[1., 0.],
                [1., 1.]])
    """

    sizes: tuple[int, ...]
    totals: tuple[int, ...]
    ranks: Ranks

    def by_domain(self, rows: Tensor) -> Tensor:
        """[N, D] as [K, n, D] with n the largest domain; zero rows add nothing to any sum of δ ⊗ z."""
        if len(set(self.sizes)) == 1:
            return rows.unflatten(0, (len(self.sizes), self.sizes[0]))
        longest = max(self.sizes)
        return torch.stack([functional.pad(part, (0, 0, 0, longest - len(part))) for part in rows.split(self.sizes)])

    def by_sample(self, domains: Tensor) -> Tensor:
        """[K, n, D] as [N, D], the padding cut off."""
        return torch.cat([domain[:size] for domain, size in zip(domains, self.sizes, strict=True)])

    def weights(self, rule: GapRule, like: Tensor) -> tuple[Tensor, Tensor]:
        """(α, β), [K, 1, 1] each, with gain·v = Σ α δ²z² − gain·(Σ β δz)²."""
        unbiased = [n / (n - 1) if rule.unbiased else 1.0 for n in self.totals]
        alpha = [rule.gain * factor / n for factor, n in zip(unbiased, self.totals, strict=True)]
        beta = [factor**0.5 / n for factor, n in zip(unbiased, self.totals, strict=True)]
        return like.new_tensor(alpha)[:, None, None], like.new_tensor(beta)[:, None, None]


@frozen(eq=False)
class Sweep:
    """What a sweep ends with.

    Args:
        value: Σ_e ‖v̂_e − mean v̂‖², 0-dim.
        remembered: keep·v̂ [K, P], or empty without a memory.
        gap: v̂ − mean v̂ [K, C, F] if all classes are one block, otherwise empty.
        mean: Σ β δz [K, C, F] likewise, if v reads it.
    """

    value: Tensor
    remembered: Tensor
    gap: Tensor
    mean: Tensor


@frozen(eq=False)
class _Block:
    """Some classes' deltas [K, n, c], what they are multiplied with [K, n, f], where in [K, P] that is, and room."""

    deltas: Tensor
    part: Tensor
    squares: Tensor | None
    classes: slice
    features: slice
    start: int
    whole: tuple[int, int]
    room: Tensor

    def of(self, statistic: Tensor) -> Tensor:
        """This block's entries [K, c, f] of a statistic [K, P]."""
        outputs, width = self.whole
        entries = statistic[:, self.start : self.start + outputs * width].unflatten(1, self.whole)
        return entries[:, self.classes, self.features]

    @property
    def bias(self) -> bool:
        """Whether it is the bias's."""
        return self.start > 0

    def chunks(self) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor]]:
        """Domains and rows to read at a time with their δ, z and z²: all if they are few, else some of one domain."""
        domains, samples, width = self.part.shape
        if self.squares is not None:
            yield slice(0, domains), slice(0, samples), self.deltas, self.part, self.squares
            return
        step = max(1, _limit(_ROWS, self.part) // width)
        for domain in range(domains):
            for start in range(0, samples, step):
                here = slice(domain, domain + 1), slice(start, start + step)
                z = self.part[here]
                yield *here, self.deltas[here], z, z * z


def sweep_forward(deltas: Tensor, features: Tensor, memory: Tensor | None, rule: GapRule, samples: Samples) -> Sweep:
    """The sum of squares and the next memory.

    Args:
        deltas: [N, C], this rank's.
        features: [N, F], this rank's.
        memory: [K, P] or None.
        rule: which distance.
        samples: how many of each domain.

    Example:
        >>> from fishr.ranks import ALONE
        >>> rows, samples = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), Samples((2, 2), (2, 2), ALONE)
        >>> sweep_forward(rows, torch.ones(4, 1), None, GapRule(), samples).value
        tensor(9.)
    """
    deltas, features = samples.by_domain(deltas), samples.by_domain(features)
    value = features.new_zeros(())
    remembered = features.new_empty(0 if memory is None else memory.shape)
    kept_gap = kept_mean = features.new_empty(0)
    for block in _blocks(deltas, features, rule):
        gap, mean = _sums(block, rule, samples)
        if memory is not None:
            gap.add_(block.of(memory), alpha=rule.memory_gain)
            torch.mul(gap, rule.keep, out=block.of(remembered))
        gap.sub_(gap.mean(0))
        value += torch.dot(gap.flatten(), gap.flatten())
        if not block.bias and tuple(gap.shape[1:]) == block.whole:
            kept_gap, kept_mean = gap, kept_mean if mean is None else mean
    return Sweep(value, remembered, kept_gap, kept_mean)


def sweep_backward(
    deltas: Tensor,
    features: Tensor,
    before: Sweep,
    rule: GapRule,
    samples: Samples,
    gradient: Tensor,
    by_features: bool,
) -> tuple[Tensor, Tensor | None]:
    """The derivative of gradient·scale·value by the rows.

    Args:
        deltas: [N, C], as in the forward sweep.
        features: [N, F], as there.
        before: what the forward sweep ended with.
        rule: as there.
        samples: as there.
        gradient: 0-dim, the sum over ranks.
        by_features: whether the features' is wanted.

    Returns:
        [N, C] by deltas and [N, F] by features or None.

    Example:
        >>> from fishr.ranks import ALONE
        >>> rows, samples = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]]), Samples((2, 2), (2, 2), ALONE)
        >>> given = rows, torch.ones(4, 1)
        >>> swept = sweep_forward(*given, None, GapRule(), samples)
        >>> sweep_backward(*given, swept, GapRule(), samples, torch.ones(()), by_features=False)[0].flatten()
        tensor([ -6.,   6.,  12., -12.])
    """
    # Autograd adds another gradient to one in place unless it is a view, so what is returned has rooms of its own.
    rooms = torch.zeros_like(deltas), torch.empty_like(features) if by_features else None
    deltas, features = samples.by_domain(deltas), samples.by_domain(features)
    to_deltas, to_features = (None if room is None else samples.by_domain(room) for room in rooms)
    assert to_deltas is not None
    alpha, beta = samples.weights(rule, features)
    # ∂value/∂v̂ = 2·gap; v̂ reads α δ²z², hence another 2, and the square of Σ β δz, hence one again.
    weight = 4 * rule.scale * gradient
    alpha, beta = weight * alpha, -rule.gain * weight * beta
    for block in _blocks(deltas, features, rule):
        if before.gap.numel() and not block.bias:
            gap, through_mean = before.gap, before.mean * before.gap if rule.centered else None
        else:
            gap, mean = _sums(block, rule, samples, before.remembered)
            gap.sub_(gap.mean(0))
            through_mean = None if mean is None else mean.mul_(gap)
        for domains, rows, delta, z, squares in block.chunks():
            a, b = alpha[domains], beta[domains]
            to_delta = torch.bmm(squares, gap[domains].mT).mul_(delta).mul_(a)
            if through_mean is not None:
                to_delta.addcmul_(torch.bmm(z, through_mean[domains].mT), b)
            to_deltas[domains, rows, block.classes] += to_delta
            if to_features is not None and not block.bias:
                to_z, through = (
                    to_features[domains, rows, block.features],
                    torch.bmm((delta * delta).mul_(a), gap[domains]),
                )
                torch.mul(through, z, out=to_z) if block.classes.start == 0 else to_z.addcmul_(through, z)
                if through_mean is not None:
                    to_z.baddbmm_(delta * b, through_mean[domains])
    if len(set(samples.sizes)) == 1:
        return rooms
    return samples.by_sample(to_deltas), None if to_features is None else samples.by_sample(to_features)


def _limit(sizes: dict[str, int], like: Tensor) -> int:
    return sizes.get(like.device.type, sizes["cuda"])


def _blocks(deltas: Tensor, features: Tensor, rule: GapRule) -> Iterator[_Block]:
    """Blocks of the weight, all classes if they are few, in one room; and the bias, which reads ones."""
    (domains, samples, outputs), width = deltas.shape, features.shape[2]
    area = _limit(_BLOCK, features) // domains
    across = min(width, max(_SIDE, area // outputs))
    step = min(outputs, max(_SIDE, area // across))
    layers = 1 + rule.centered
    room = features.new_empty(layers * domains * step * across)
    for left in range(0, width, across):
        columns = slice(left, min(left + across, width))
        part = features[:, :, columns]
        squares = part * part if part.numel() <= _limit(_ROWS, features) else None
        for top in range(0, outputs, step):
            classes = slice(top, min(top + step, outputs))
            shape = (layers, domains, classes.stop - classes.start, columns.stop - columns.start)
            own = room[: prod(shape)].view(shape)
            yield _Block(deltas[:, :, classes], part, squares, classes, columns, 0, (outputs, width), own)
    if rule.bias:
        ones, whole = features.new_ones(1, 1, 1).expand(domains, samples, 1), (outputs, 1)
        # The only block of the weight may be kept.
        own = features.new_empty(layers, domains, *whole)
        yield _Block(deltas, ones, ones, slice(0, outputs), slice(0, 1), outputs * width, whole, own)


def _sums(
    block: _Block, rule: GapRule, samples: Samples, remembered: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """gain·v [K, c, F], or v̂ where it is remembered, and Σ β δz (None if v does not read it), in the block's room."""
    alpha, beta = samples.weights(rule, block.part)
    gap, mean = block.room[0], block.room[1] if rule.centered else None
    known = remembered is not None and remembered.numel() > 0
    for domains, rows, delta, z, squares in block.chunks():
        first = float(rows.start > 0)
        if not known:
            gap[domains].baddbmm_((delta * delta).mul_(alpha[domains]).mT, squares, beta=first)
        if mean is not None:
            mean[domains].baddbmm_((delta * beta[domains]).mT, z, beta=first)
    add_over_ranks(block.room[int(known) :], samples.ranks)
    if remembered is not None and known:
        torch.mul(block.of(remembered), 1 / rule.keep, out=gap)
    elif mean is not None:
        gap.addcmul_(mean, mean, value=-rule.gain)
    return gap, mean
