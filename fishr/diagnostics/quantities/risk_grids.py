"""Quantities of risks on a landscape grid: linear barriers, and the inconsistency of domains."""

from typing import Any, cast

import torch
from torch import Tensor

from fishr.diagnostics.registry import grid_diagnostic
from fishr.diagnostics.uncertainty import Estimate, largest_of_pairs
from fishr.errors import InputError


@grid_diagnostic("loss", ("domain",), section="landscape")
def barrier(risks: Tensor, positions: Tensor | None = None) -> Estimate:
    """max_α R_e(θ_α) − ((1 − α) R_e(θ_0) + α R_e(θ_1)) along θ_α = (1 − α) θ_0 + α θ_1.

    Meaning: height of the ridge in each domain's risk on the straight line between two weights. Large: the two ends
    are in different valleys for this domain, so their average is poor.

    On given points it is a lower bound of the maximum over the line. For a convex risk it is zero.

    Route: risks on a line. Exact: on the points; a lower bound between them.

    Args:
        risks: [K, T], loss, from α = 0 to α = 1; NaN where not evaluated.
        positions: [T], α of each point; evenly spaced by default.

    Returns:
        [K], loss; at least 0, which the ends attain.

    Raises:
        InputError: fewer than two points, positions that do not run from 0 to 1, or an end that was not evaluated.

    Example:
        >>> barrier(torch.tensor([[0.0, 1.0, 1.0]])).value
        tensor([0.5000])

    Source:
        Frankle et al. 2020 (arXiv 1912.05671), against the chord instead of the mean of the ends.
    """
    risks = risks.detach()
    if risks.ndim != 2 or risks.shape[1] < 2:
        raise InputError(f"barrier: got risks of shape {tuple(risks.shape)}, expected [K, T] with at least 2 points")
    alpha = torch.linspace(0, 1, risks.shape[1], dtype=risks.dtype, device=risks.device)
    alpha = alpha if positions is None else positions.to(alpha)
    if alpha.shape != risks.shape[1:] or alpha[0] != 0 or alpha[-1] != 1:
        raise InputError(
            f"barrier: got {tuple(alpha.shape)} positions from {alpha[0]:g} to {alpha[-1]:g}, expected one for each of "
            f"the {risks.shape[1]} points, from 0 to 1"
        )
    if risks[:, [0, -1]].isnan().any():
        raise InputError("barrier: got NaN at an end of the line, expected every domain's risk there")
    chord = (1 - alpha) * risks[:, :1] + alpha * risks[:, -1:]
    value = (risks - chord).nan_to_num(nan=-torch.inf, posinf=torch.inf).amax(1)
    return Estimate(value, f"{risks.shape[1]} points of the line: a lower bound")


@grid_diagnostic("loss", (), section="landscape")
def inconsistency(risks: Tensor, center: tuple[int, ...], epsilon: float) -> Estimate:
    """I^ε(θ*) = max over ordered pairs A ≠ B of max |R_B(θ) − R_A(θ*)| over the θ connected to θ* with A at par.

    Meaning: how far another domain's risk gets from the risk at the center within the region where one domain's
    risk stays the same. Large: some weights near the center are good for one domain and bad for another.

    A is at par where |R_A(θ) − R_A(θ*)| ≤ ε. On a grid it is a lower bound of the maximum over the plane or line.

    Route: risks on one grid. Exact: on the points; a lower bound between them.

    Args:
        risks: [K, ...] risks of the domains on a grid of one or more axes, loss; NaN where not evaluated, and a point
            that misses a domain belongs to no region.
        center: index of θ* on the grid.
        epsilon: ε ≥ 0, loss.

    Returns:
        0-dim, loss; 0 for a single domain.

    Raises:
        InputError: the center does not lie on the grid or was not evaluated, or ε is negative.

    Example:
        >>> risks = torch.tensor([[1.0, 0.1, 0.0, 0.1, 1.0], [0.5, 0.4, 0.3, 0.2, 0.1]])
        >>> inconsistency(risks, (2,), 0.1).value  # in A's region, points 1 to 3, B is at most 0.4 from R_A(θ*) = 0
        tensor(0.4000)

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329), in the form of Ramé et al. 2022 (arXiv 2109.02934).
    """
    return largest_of_pairs(inconsistency_pairs(risks, center, epsilon))


@grid_diagnostic("loss", ("domain", "domain"), section="landscape")
def inconsistency_pairs(risks: Tensor, center: tuple[int, ...], epsilon: float) -> Estimate:
    """max |R_B(θ) − R_A(θ*)| over A's region, for every ordered pair (A, B).

    Meaning: how far B's risk gets from the risk at the center within the region where A's risk stays the same.
    Large: weights that A cannot tell apart differ much for B.

    Route: risks on one grid. Exact: on the points; a lower bound between them.

    Args:
        risks: [K, ...] as in ``inconsistency``.
        center: index of θ* on the grid.
        epsilon: ε ≥ 0, loss.

    Returns:
        [K, K], loss; row A, column B. The diagonal, how far A's risk itself moves in its region, is at most ε.

    Raises:
        InputError: as in ``inconsistency``.

    Example:
        >>> risks = torch.tensor([[1.0, 0.1, 0.0, 0.1, 1.0], [0.5, 0.4, 0.3, 0.2, 0.1]])
        >>> inconsistency_pairs(risks, (2,), 0.1).value  # B's region is points 1 to 3 as well
        tensor([[0.1000, 0.4000],
                [0.3000, 0.1000]])
    """
    risks = risks.detach()
    _check(risks, center, epsilon)
    evaluated = ~risks.isnan().any(0)
    at_center = risks[(slice(None), *center)]
    rows = list[Tensor]()
    for own, start in zip(risks, at_center, strict=True):
        region = connected_region(evaluated & ((own - start).abs() <= epsilon), center)
        rows.append((risks[:, region] - start).abs().amax(1))
    shape = "×".join(map(str, risks.shape[1:]))
    route = f"connected regions on a grid of {shape} points, ε={epsilon:g}: a lower bound, blind between the points"
    return Estimate(torch.stack(rows), route)


def connected_region(inside: Tensor, center: tuple[int, ...]) -> Tensor:
    """Return the connected part of a set of grid points that holds the center; neighbors share a face."""
    from scipy import ndimage

    labels, _ = cast(tuple[Any, int], ndimage.label(inside.numpy(force=True)))
    return torch.from_numpy(labels == labels[center]).to(inside.device)


def _check(risks: Tensor, center: tuple[int, ...], epsilon: float) -> None:
    grid = tuple(risks.shape[1:])
    if risks.ndim < 2 or len(center) != len(grid) or any(not 0 <= i < n for i, n in zip(center, grid, strict=True)):
        raise InputError(
            f"inconsistency: got center {center} and risks of shape {tuple(risks.shape)}, expected [K, grid…] "
            "and one index for each axis of the grid, on it"
        )
    if not epsilon >= 0:
        raise InputError(f"inconsistency: got epsilon {epsilon}, expected a number of at least 0")
    if risks[(slice(None), *center)].isnan().any():
        raise InputError(
            f"inconsistency: got NaN at the center {center}, expected every domain's risk there; evaluate it first"
        )
