"""Blocks of a fused distance: some classes and features of a linear layer, on the samples of one rank or several."""

import threading
from collections.abc import Iterator
from math import prod

import torch
from attrs import field, frozen
from torch import Tensor
from torch.nn import functional

from fishr.checks import number
from fishr.compilation import traceable
from fishr.ranks import Ranks

# Elements of a block (domains × classes × features), and of the rows (samples × features) read for it at a time:
# measured best on a CPU; a GPU wants few large kernels.
_BLOCK = {"cpu": 5 << 18, "cuda": 1 << 26}
_ROWS = {"cpu": 1 << 19, "cuda": 1 << 26}
# Least classes and features of a block: reading its inputs must cost little beside its products.
_SIDE = 128
_LINE = 16
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


@traceable
@frozen(eq=False)
class Samples:
    """Samples of each domain on this rank and on all ranks."""

    sizes: tuple[int, ...]
    totals: tuple[int, ...]
    ranks: Ranks

    def by_domain(self, rows: Tensor) -> Tensor:
        """Return [N, D] as [K, n, D] with n the largest domain; zero rows add nothing to any sum of δ ⊗ z."""
        if len(set(self.sizes)) == 1:
            return rows.unflatten(0, (len(self.sizes), self.sizes[0]))
        longest = max(self.sizes)
        return torch.stack([functional.pad(part, (0, 0, 0, longest - len(part))) for part in rows.split(self.sizes)])

    def by_sample(self, domains: Tensor) -> Tensor:
        """Return [K, n, D] as [N, D], without the padding."""
        return torch.cat([domain[:size] for domain, size in zip(domains, self.sizes, strict=True)])

    def weights(self, gain: float, unbiased: bool, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return (α, β), [K, 1, 1] each, with gain·v = Σ α δ²z² − gain·(Σ β δz)²."""
        factors = [n / (n - 1) if unbiased else 1.0 for n in self.totals]
        alpha = [gain * factor / n for factor, n in zip(factors, self.totals, strict=True)]
        beta = [factor**0.5 / n for factor, n in zip(factors, self.totals, strict=True)]
        return _column(alpha, like), _column(beta, like)


def _column(values: list[float], like: Tensor) -> Tensor:
    """Return [K, 1, 1]; equal values are filled in, because a copy from the host makes a GPU wait."""
    if len(set(values)) == 1:
        return like.new_full((len(values), 1, 1), values[0])
    return like.new_tensor(values)[:, None, None]


@traceable
@frozen(eq=False)
class Block:
    """Some classes' δ [K, n, c], features z [K, n, f], their place in [K, P], and an output buffer [·, K, c, f]."""

    # `squares` is z², or None where `chunks` has several parts.

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


def blocks(deltas: Tensor, features: Tensor, rule: GapRule, bias: bool) -> Iterator[Block]:
    """Yield blocks of the weight, of all classes if they are few, in one buffer; then the bias, whose inputs are 1."""
    (domains, samples, outputs), width = deltas.shape, features.shape[2]
    device, layers = features.device.type, 1 + rule.centered
    rows = _ROWS.get(device, _ROWS["cuda"])
    area = _BLOCK.get(device, _BLOCK["cuda"]) // domains
    across = _evenly(width, max(_SIDE, area // outputs))
    step = _evenly(outputs, max(_SIDE, area // across))
    everything = [(slice(0, domains), slice(0, samples))]
    elements = layers * domains * step * across
    # The only block of a weight is kept for the backward pass.
    buffer = features.new_empty(elements) if (step, across) == (outputs, width) else workspace(features, elements)
    for left in range(0, width, across):
        columns = slice(left, min(left + across, width))
        part = features[:, :, columns]
        squares, chunks = part * part if part.numel() <= rows else None, everything
        if squares is None:
            chunks = _chunks(domains, samples, max(1, rows // part.shape[2]))
        for top in range(0, outputs, step):
            classes = slice(top, min(top + step, outputs))
            shape = (layers, domains, classes.stop - classes.start, columns.stop - columns.start)
            out = buffer[: prod(shape)].view(shape)
            yield Block(deltas[:, :, classes], part, squares, chunks, classes, columns, 0, (outputs, width), out)
    if bias:
        ones, whole = features.new_ones(1, 1, 1).expand(domains, samples, 1), (outputs, 1)
        # A buffer of its own: the only block of the weight may be kept.
        out = features.new_empty(layers, domains, *whole)
        yield Block(deltas, ones, ones, everything, slice(0, outputs), slice(0, 1), outputs * width, whole, out)


def _chunks(domains: int, samples: int, rows: int) -> list[tuple[slice, slice]]:
    """Return parts of [K, n] of at most so many rows: some whole domains, or some rows of one domain."""
    if rows >= samples:
        some = rows // samples
        return [(slice(k, min(k + some, domains)), slice(0, samples)) for k in range(0, domains, some)]
    parts = [slice(n, min(n + rows, samples)) for n in range(0, samples, rows)]
    return [(slice(k, k + 1), part) for k in range(domains) for part in parts]


def _evenly(whole: int, most: int) -> int:
    """Return the size of the fewest parts of about one size, of whole lines of a CPU's cache."""
    parts = -(-whole // most)
    return whole if parts == 1 else _LINE * -(-whole // (_LINE * parts))


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
