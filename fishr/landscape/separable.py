"""Sums of losses and of hits over a grid of coordinates, without the logits of every point.

On a plane the exponentials of margins factor, exp(t + αa + βb) = exp(αa)·exp(t + βb), so that the sum over classes at
all points of the grid is one matrix product a sample. And along α a sample is classified rightly on one interval.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from fishr.landscape.margins import Margins

# exp(±650) is still a normal float64, as is the sum of very many of them.
_LARGEST_EXPONENT = 650.0
# Numbers of one intermediate result: small enough to stay in a core's cache.
_BLOCK = 1 << 18


def loss_sums(margins: Margins, xs: Tensor, ys: Tensor) -> Tensor:
    """Σ_r ℓ_r at each point of a grid.

    Args:
        margins: of R losses.
        xs: [nx], float64, values of α.
        ys: [ny], float64, values of β.

    Returns:
        [nx, ny], float64.

    Example:
        >>> one, two = torch.zeros(1, 1).double(), torch.full((1, 1), 2.0).double()
        >>> loss_sums(Margins(one, two, one, one > 0), torch.tensor([0.0, 1.0]).double(), torch.zeros(1).double())
        tensor([[0.6931],
                [2.1269]], dtype=torch.float64)
    """
    total = torch.zeros(len(xs), len(ys), dtype=torch.float64, device=margins.base.device)
    # Where no factor and no product can leave float64's range, nothing is lost to under- or overflow.
    along = xs.abs().amax() * _largest(margins.first) + ys.abs().amax() * _largest(margins.second)
    separable = _largest(margins.base) + along < _LARGEST_EXPONENT
    for base, first, second, _ in _blocks(margins, separable, xs, ys):
        along_x = (first.unsqueeze(1) * xs.unsqueeze(1)).exp_()
        along_y = torch.addcmul(base.unsqueeze(2), second.unsqueeze(2), ys).exp_()
        total += torch.bmm(along_x, along_y).log1p_().sum(0)
    for base, first, second, _ in _blocks(margins, ~separable, xs, ys):
        for i, x in enumerate(xs):
            exponents = torch.addcmul((base + x * first).unsqueeze(2), second.unsqueeze(2), ys)
            total[i] += torch.logsumexp(torch.cat([torch.zeros_like(exponents[:, :1]), exponents], 1), 1).sum(0)
    return total


def hit_counts(margins: Margins, xs: Tensor, ys: Tensor) -> Tensor:
    """How many rows are hits at each point of a grid.

    At a given β each margin is negative on one side of one value of α, so a row is a hit between two values.

    Args:
        margins: of R losses.
        xs: [nx], float64, values of α.
        ys: [ny], float64, values of β.

    Returns:
        [nx, ny], float64, whole numbers.

    Example:
        >>> base, first = torch.tensor([[-1.0]]).double(), torch.tensor([[2.0]]).double()
        >>> xs = torch.tensor([0.0, 0.5, 1.0]).double()
        >>> hit_counts(Margins(base, first, 0 * first, first > 0), xs, torch.zeros(1).double()).flatten()
        tensor([1., 1., 0.], dtype=torch.float64)
    """
    total = torch.zeros(len(xs), len(ys), dtype=torch.float64, device=margins.base.device)
    everything = torch.ones(len(margins.base), dtype=torch.bool, device=total.device)
    for base, first, second, wins_ties in _blocks(margins, everything, xs, ys):
        slope, wins = first.unsqueeze(1), wins_ties.unsqueeze(1)
        value = torch.addcmul(base.unsqueeze(1), second.unsqueeze(1), ys.unsqueeze(1))
        # A margin of 0 that loses its tie is as bad as a positive one.
        never = (slope == 0) & ~((value < 0) | (wins & (value == 0)))
        end = -value / slope
        inner = torch.nextafter(end, torch.copysign(end.new_tensor(torch.inf), -slope))
        end = torch.where(wins, end, inner)
        upper = torch.where(slope > 0, end, torch.inf).amin(2).masked_fill(never.any(2), -torch.inf)
        lower = torch.where(slope < 0, end, -torch.inf).amax(2)
        at = xs.view(1, -1, 1)
        total += ((at >= lower.unsqueeze(1)) & (at <= upper.unsqueeze(1))).sum(0)
    return total


def _largest(part: Tensor) -> Tensor:
    return part.masked_fill(part == -torch.inf, 0.0).abs().amax(1)


def _blocks(margins: Margins, rows: Tensor, xs: Tensor, ys: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    width = margins.base.shape[1] * (len(xs) + len(ys)) + len(xs) * len(ys)
    for index in rows.nonzero().flatten().split(max(1, _BLOCK // width)):
        yield margins.base[index], margins.first[index], margins.second[index], margins.wins_ties[index]
