"""Moments of several sets of samples merged: chunks, accumulation steps and ranks.

Parts merge exactly; variances through the spread of the parts' means (Chan, Golub and LeVeque 1983), without the
cancellation of a difference of second moments.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.ranks import Ranks, counts_of_ranks, sum_over_ranks
from fishr.statistics.domain_moments import GradientMoments


def merge_moments(*parts: GradientMoments) -> GradientMoments:
    """Return moments of the union of disjoint sets of samples, domain by domain.

    n = Σ n_i, mean = Σ (n_i/n) mean_i, variance = Σ (n_i/n) (variance_i + (mean_i − mean)²).

    Args:
        parts: moments over the same domains and parameters; a part may have no sample of a domain (count 0), whose
            moments are then ignored.

    Raises:
        InputError: no part, different layouts or numbers of domains, or a domain without any sample.

    Example:
        >>> import torch
        >>> from fishr.types import Layout
        >>> layout = Layout(("w",), ((1,),))
        >>> left = GradientMoments((1,), torch.tensor([[0.0]]), torch.tensor([[0.0]]), layout)
        >>> right = GradientMoments((3,), torch.tensor([[4.0]]), torch.tensor([[0.0]]), layout)
        >>> both = merge_moments(left, right)
        >>> both.count, both.mean, both.variance
        ((4,), tensor([[3.]]), tensor([[3.]]))
    """
    if not parts:
        raise InputError("merge_moments: got no moments, expected at least one")
    first = parts[0]
    for other in parts[1:]:
        if other.layout != first.layout or len(other.count) != len(first.count):
            raise InputError(
                f"merge_moments: got {len(other.count)} domains of {other.layout.names} beside {len(first.count)} "
                f"domains of {first.layout.names}, expected the same domains and parameters in every part"
            )
    totals = tuple(map(sum, zip(*(part.count for part in parts), strict=True)))
    if min(totals) < 1:
        raise InputError(f"merge_moments: got {totals} samples in the domains, expected at least one in each")
    if len(parts) == 1:
        return first
    counts = first.mean.new_tensor([part.count for part in parts]).unsqueeze(2)
    shares, empty = counts / counts.sum(0), counts == 0
    # The moments of no sample may be NaN.
    means = torch.stack([part.mean for part in parts]).masked_fill(empty, 0)
    variances = torch.stack([part.variance for part in parts]).masked_fill(empty, 0)
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean).square())).sum(0)
    return GradientMoments(totals, mean, variance, first.layout)


def with_missing(part: GradientMoments, sizes: Sequence[int]) -> GradientMoments:
    """Return moments of all domains, with zeros for those of size 0, from the moments of the others."""
    if all(sizes):
        return part
    present = torch.tensor([k for k, size in enumerate(sizes) if size], device=part.mean.device)
    zeros = part.mean.new_zeros(len(sizes), part.layout.size)
    mean, variance = (zeros.index_copy(0, present, rows) for rows in (part.mean, part.variance))
    return GradientMoments(tuple(sizes), mean, variance, part.layout)


def equal_domains(sizes: Sequence[int], step: int) -> Iterator[tuple[slice, list[slice]]]:
    """Yield neighbors of one size with at most ``step`` samples, and slices of these; several of a larger one."""
    first = start = 0
    for size, group in groupby(sizes):
        left, most = len(list(group)), max(1, step // size)
        while left:
            count = min(left, most)
            end = start + count * size
            yield slice(first, first + count), [slice(at, min(at + step, end)) for at in range(start, end, step)]
            first, start, left = first + count, end, left - count


def moments_of_samples(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return mean and population variance [K, ...] over the samples of all chunks [K, n_i, ...], in two passes each."""
    seen, mean, variance = 0, None, None
    for chunk in chunks:
        chunk_mean = chunk.mean(1)
        centered = chunk - chunk_mean.unsqueeze(1)
        # In place where no derivative reads it: memory that is fresh costs more than the square.
        chunk_variance = (centered.square() if centered.requires_grad else centered.square_()).mean(1)
        seen += chunk.shape[1]
        if mean is None or variance is None:
            mean, variance = chunk_mean, chunk_variance
        else:
            apart, share = chunk_mean - mean, chunk.shape[1] / seen
            mean = mean + share * apart
            variance = variance + share * (chunk_variance - variance) + share * (1 - share) * apart * apart
    if mean is None or variance is None:
        raise InputError("moments_of_samples: got no chunk, expected at least one")
    return mean, variance


def moments_of_domains(samples: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return mean and population variance [K, ...] over each domain's rows of samples [N, ...]."""
    blocks = equal_domains(sizes, len(samples))
    return joined(moments_of_samples([by_domain(samples[rows], of)]) for of, (rows,) in blocks)


def by_domain(rows: Tensor, domains: slice) -> Tensor:
    """Return rows [K·n, ...] of domains of equal size as [K, n, ...]."""
    return rows.unflatten(0, (domains.stop - domains.start, -1))


def joined(moments: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the moments of some domains and of the following ones as those of all."""
    means, variances = zip(*moments, strict=True)
    return (means[0], variances[0]) if len(means) == 1 else (torch.cat(means), torch.cat(variances))


def moments_over_ranks(own: GradientMoments, ranks: Ranks) -> GradientMoments:
    """Return moments of all ranks' samples: ``merge_moments`` by two differentiable sums, the same on every rank."""
    if ranks.alone:
        return own
    count = tuple(map(sum, zip(*counts_of_ranks(own.count, ranks), strict=True)))
    share = own.mean.new_tensor([n / all_ for n, all_ in zip(own.count, count, strict=True)]).unsqueeze(1)
    mean = sum_over_ranks(share * own.mean, ranks)
    apart = own.mean - mean
    return GradientMoments(count, mean, sum_over_ranks(share * (own.variance + apart * apart), ranks), own.layout)
