"""Samples of the domains of a fused distance, on one rank or several, and of one head or several of one layout."""

from collections.abc import Callable
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor
from torch.nn import functional

from fishr.compilation import traceable
from fishr.ranks import Ranks


@traceable
@frozen(eq=False)
class Samples:
    """Samples of each domain on this rank and on all ranks."""

    sizes: tuple[int, ...]
    totals: tuple[int, ...]
    ranks: Ranks
    heads: int = 1  # of one layout, whose domains follow each other: then K stands for those of all heads

    def mean(self, statistic: Tensor) -> Tensor:
        """Return the mean over domains of [K, c, f], or with several heads, for each domain, that of its head."""
        if self.heads == 1:
            return statistic.mean(0)
        of_heads = statistic.unflatten(0, (self.heads, -1))
        return of_heads.mean(1, keepdim=True).expand_as(of_heads).flatten(0, 1)

    def squares(self, statistic: Tensor) -> Tensor:
        """Return ‖·‖² of [K, c, f], 0-dim, or that of each head."""
        if self.heads == 1:
            return torch.dot(statistic.flatten(), statistic.flatten())
        return torch.stack([torch.dot(own, own) for own in statistic.reshape(self.heads, -1)])

    def of_domains(self, values: Tensor) -> Tensor:
        """Return a value as it is, and those of heads as [K, 1, 1]."""
        return values if self.heads == 1 else values.repeat_interleave(self.domains)[:, None, None]

    @property
    def domains(self) -> int:
        """Domains of a head."""
        return len(self.sizes) // self.heads

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
        return like.new_tensor(alpha)[:, None, None], like.new_tensor(beta)[:, None, None]


def batched_over_heads(
    gap: Callable[..., Any], elements: int, heads: int, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Return the outputs of ``gap`` for several heads, as many at once as keep their rows within so many elements."""
    *tensors, rule, samples = inputs
    own = [_with_heads(x, dim, heads) for x, dim in zip(tensors, in_dims, strict=False)]
    width = tensors[1].numel() // (1 if in_dims[1] is None else heads)
    some = max(1, elements // width) if samples.ranks.alone and samples.heads == 1 else 1
    found = list[list[Tensor]]()
    for start in range(0, heads, some):
        part = [None if x is None else x[start : start + some] for x in own]
        number = min(some, heads - start)
        if number == 1:
            found.append([x[None] for x in gap(*(None if x is None else x[0] for x in part), rule, samples)])
            continue
        together = evolve(samples, sizes=samples.sizes * number, totals=samples.totals * number, heads=number)
        made = gap(*(None if x is None else x.flatten(0, 1) for x in part), rule, together)
        found.append([_of_heads(x, number) for x in made])
    outputs = tuple(torch.cat(each) for each in zip(*found, strict=True))
    return outputs, (0,) * len(outputs)


def _with_heads(x: Tensor | None, dim: int | None, heads: int) -> Tensor | None:
    """Return an input of several heads as [H, ...]."""
    if x is None:
        return None
    return x.expand(heads, *x.shape) if dim is None else x.movedim(dim, 0)


def _of_heads(output: Tensor, heads: int) -> Tensor:
    """Return an output for several heads as [H, ...]; one without numbers as [H, 0]."""
    if output.ndim > 1:
        return output.unflatten(0, (heads, -1))
    return output if output.numel() else output.new_empty(heads, 0)
