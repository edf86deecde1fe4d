"""Per-domain moments of gradients that are sums of few outer products, g = Σ_p δ_p ⊗ z_p, without forming any.

Σ_n g = Σ_np δ_p ⊗ z_p and Σ_n g² = Σ_n Σ_pq (δ_p∘δ_q) ⊗ (z_p∘z_q): two matrix products a domain. A linear layer has one
place p for each token, a convolution those of its output.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

# Places up to which products over pairs of places take less time than gradients of single samples (on a CPU).
FEW_PLACES = 8
# Elements of the products of pairs that exist at a time.
_ELEMENTS = 1 << 20


def outer_moments(deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and variance [K, O, I] of Σ_p δ_p ⊗ z_p, from δ [N, places, O] and z [N, places, I]."""
    return _OuterMoments.apply(deltas, inputs, sizes)  # pyright: ignore


class _OuterMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        mean, variance = deltas.new_empty(2, len(sizes), deltas.shape[2], inputs.shape[2]).unbind()
        pairs = _Pairs.of(deltas)
        for k, rows in pairs.chunks(deltas, inputs, sizes):
            delta, z, old = deltas[rows], inputs[rows], float(rows.start > sum(sizes[:k]))
            mean[k].addmm_(_flat(delta).T, _flat(z), beta=old)
            variance[k].addmm_(_flat(pairs(delta)).T, _flat(pairs.weighted(z)), beta=old)
        for k, size in enumerate(sizes):
            variance[k].div_(size).addcmul_(mean[k].div_(size), mean[k], value=-1)
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(deltas, inputs, mean)
        return mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        deltas, inputs, mean = ctx.saved_tensors
        by_mean, by_variance = gradients
        by_variance = torch.zeros_like(mean) if by_variance is None else by_variance
        if torch.is_grad_enabled():
            plain = partial(_plain, sizes=ctx.sizes)
            by_mean = torch.zeros_like(mean) if by_mean is None else by_mean
            return *torch.func.vjp(plain, deltas, inputs)[1]((by_mean, by_variance)), None
        by_deltas, by_inputs, pairs = deltas.new_empty(deltas.shape), inputs.new_empty(inputs.shape), _Pairs.of(deltas)
        known, to_mean, to_squares = -1, mean.new_empty(mean.shape[1:]), mean.new_empty(mean.shape[1:])
        for k, rows in pairs.chunks(deltas, inputs, ctx.sizes):
            if k > known:
                known = k
                torch.div(by_variance[k], ctx.sizes[k], out=to_squares)
                torch.mul(to_squares, mean[k], out=to_mean).mul_(-2)
                if by_mean is not None:
                    to_mean.add_(by_mean[k], alpha=1 / ctx.sizes[k])
            delta, z = deltas[rows], inputs[rows]
            by_delta, by_z = by_deltas[rows], by_inputs[rows]
            torch.mm(_flat(z), to_mean.T, out=_flat(by_delta))
            torch.mm(_flat(delta), to_mean, out=_flat(by_z))
            pairs.add_(by_delta, _flat(pairs.weighted(z)) @ to_squares.T, delta)
            pairs.add_(by_z, _flat(pairs.weighted(delta)) @ to_squares, z)
        return by_deltas, by_inputs, None


@frozen(eq=False)
class _Pairs:
    """Pairs of places p ≤ q, and how often each is in the sum over all p and q."""

    first: Tensor
    second: Tensor
    times: Tensor

    @staticmethod
    def of(deltas: Tensor) -> "_Pairs":
        first, second = torch.triu_indices(deltas.shape[1], deltas.shape[1], device=deltas.device)
        return _Pairs(first, second, (2.0 - (first == second).to(deltas.dtype)).unsqueeze(1))

    def __call__(self, rows: Tensor) -> Tensor:
        return rows[:, self.first] * rows[:, self.second]

    def weighted(self, rows: Tensor) -> Tensor:
        return self(rows).mul_(self.times)

    def add_(self, total: Tensor, by_pairs: Tensor, rows: Tensor) -> None:
        """Add the gradient by rows, from that by their pairs."""
        by_pairs = by_pairs.view(len(rows), -1, rows.shape[2])
        total.index_add_(1, self.first, by_pairs * rows[:, self.second])
        total.index_add_(1, self.second, by_pairs * rows[:, self.first])

    def chunks(self, deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
        """Yield domains and rows of them."""
        step, start = max(1, _ELEMENTS // (len(self.first) * (deltas.shape[2] + inputs.shape[2]))), 0
        for k, size in enumerate(sizes):
            for first in range(start, start + size, step):
                yield k, slice(first, min(first + step, start + size))
            start += size


def _flat(rows: Tensor) -> Tensor:
    return rows.flatten(0, 1)


def _plain(deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the same in plain differentiable steps, with the gradient of each sample."""
    domains = (deltas.mT @ inputs).split(sizes)
    mean = torch.stack([gradients.mean(0) for gradients in domains])
    return mean, torch.stack([gradients.var(0, correction=0) for gradients in domains])
