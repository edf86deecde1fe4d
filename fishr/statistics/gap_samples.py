"""Samples of the domains of a fused distance, on one rank or several."""

import torch
from attrs import frozen
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
