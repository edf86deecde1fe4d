"""Moments of samples that lie on several ranks."""

from fishr.ranks import Ranks, counts_of_ranks, sum_over_ranks
from fishr.types import GradientMoments


def moments_over_ranks(own: GradientMoments, ranks: Ranks) -> GradientMoments:
    """Moments of all ranks' samples together, from each rank's own: ``merge_moments``, by two differentiable sums.

    n = Σ n_r, mean = Σ (n_r/n) mean_r, variance = Σ (n_r/n) (variance_r + (mean_r − mean)²).

    Args:
        own: of this rank's samples; each rank has the same domains and parameters.
        ranks: who takes part; all of them must call.

    Returns:
        The same moments on every rank, differentiable by those of each.

    Raises:
        RankLost: one of them is gone.

    Example:
        >>> import torch
        >>> from fishr.ranks import ALONE
        >>> from fishr.types import Layout
        >>> one = torch.ones(1, 1)
        >>> moments_over_ranks(GradientMoments((4,), one, one, Layout(("w",), ((1,),))), ALONE).count
        (4,)
    """
    if ranks.alone:
        return own
    count = tuple(map(sum, zip(*counts_of_ranks(own.count, ranks), strict=True)))
    share = own.mean.new_tensor([n / all_ for n, all_ in zip(own.count, count, strict=True)]).unsqueeze(1)
    mean = sum_over_ranks(share * own.mean, ranks)
    apart = own.mean - mean
    return GradientMoments(count, mean, sum_over_ranks(share * (own.variance + apart * apart), ranks), own.layout)
