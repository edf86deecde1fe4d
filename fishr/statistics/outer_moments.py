"""Per-domain moments of gradients that are sums of few outer products, g = Σ_p δ_p ⊗ z_p, without forming any.

Σ_n g = Σ_np δ_p ⊗ z_p and Σ_n g² = Σ_n Σ_pq (δ_p∘δ_q) ⊗ (z_p∘z_q): two matrix products a domain. A linear layer has one
place p for each token, a convolution those of its output.
"""

from functools import partial
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fishr.statistics.merge import by_domain, equal_domains

# Places up to which products over pairs of places take less time than gradients of single samples (on a CPU).
FEW_PLACES = 8
# Elements of the products of pairs that exist at a time: few for a CPU's cache, many for few kernels.
_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 26}


def outer_moments(deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and variance [K, O, I] of Σ_p δ_p ⊗ z_p, from δ [N, places, O] and z [N, places, I]."""
    return _OuterMoments.apply(deltas, inputs, sizes)  # pyright: ignore


class _OuterMoments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        mean, variance = deltas.new_empty(2, len(sizes), deltas.shape[2], inputs.shape[2]).unbind()
        pairs = _Pairs.of(deltas)
        for domains, chunks in equal_domains(sizes, pairs.samples(deltas, inputs)):
            old = 0.0
            for rows in chunks:
                delta, z = by_domain(deltas[rows], domains), by_domain(inputs[rows], domains)
                mean[domains].baddbmm_(_flat(delta).mT, _flat(z), beta=old)
                variance[domains].baddbmm_(_flat(pairs(delta)).mT, _flat(pairs.weighted(z)), beta=old)
                old = 1.0
            size = sizes[domains.start]
            variance[domains].div_(size).addcmul_(mean[domains].div_(size), mean[domains], value=-1)
        ctx.sizes, ctx.pairs = sizes, pairs
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
        by_deltas, by_inputs, pairs = deltas.new_empty(deltas.shape), inputs.new_empty(inputs.shape), ctx.pairs
        for domains, chunks in equal_domains(ctx.sizes, pairs.samples(deltas, inputs)):
            size = ctx.sizes[domains.start]
            to_squares = by_variance[domains] / size
            to_mean = (to_squares * mean[domains]).mul_(-2)
            if by_mean is not None:
                to_mean.add_(by_mean[domains], alpha=1 / size)
            for rows in chunks:
                delta, z = by_domain(deltas[rows], domains), by_domain(inputs[rows], domains)
                by_delta, by_z = by_domain(by_deltas[rows], domains), by_domain(by_inputs[rows], domains)
                torch.bmm(_flat(z), to_mean.mT, out=_flat(by_delta))
                torch.bmm(_flat(delta), to_mean, out=_flat(by_z))
                pairs.add_(by_delta, _flat(pairs.weighted(z)) @ to_squares.mT, delta)
                pairs.add_(by_z, _flat(pairs.weighted(delta)) @ to_squares, z)
        return by_deltas, by_inputs, None


@frozen(eq=False)
class _Pairs:
    """Pairs of places p ≤ q, and how often each is in the sum over all p and q; rows are [K, n, places, width]."""

    first: Tensor
    second: Tensor
    times: Tensor

    @staticmethod
    def of(deltas: Tensor) -> "_Pairs":
        first, second = torch.triu_indices(deltas.shape[1], deltas.shape[1], device=deltas.device)
        return _Pairs(first, second, (2.0 - (first == second).to(deltas.dtype)).unsqueeze(1))

    def __call__(self, rows: Tensor) -> Tensor:
        return rows[:, :, self.first] * rows[:, :, self.second]

    def weighted(self, rows: Tensor) -> Tensor:
        return self(rows).mul_(self.times)

    def add_(self, total: Tensor, by_pairs: Tensor, rows: Tensor) -> None:
        """Add the gradient by rows, from that by their pairs."""
        by_pairs = by_pairs.unflatten(1, (rows.shape[1], -1))
        total.index_add_(2, self.first, by_pairs * rows[:, :, self.second])
        total.index_add_(2, self.second, by_pairs * rows[:, :, self.first])

    def samples(self, deltas: Tensor, inputs: Tensor) -> int:
        """Return how many samples are computed at a time."""
        elements = _ELEMENTS.get(deltas.device.type, _ELEMENTS["cuda"])
        return max(1, elements // (len(self.first) * (deltas.shape[2] + inputs.shape[2])))


def _flat(rows: Tensor) -> Tensor:
    return rows.flatten(1, 2)


def _plain(deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the same in plain differentiable steps, with the gradient of each sample."""
    domains = (deltas.mT @ inputs).split(sizes)
    mean = torch.stack([gradients.mean(0) for gradients in domains])
    return mean, torch.stack([gradients.var(0, correction=0) for gradients in domains])
