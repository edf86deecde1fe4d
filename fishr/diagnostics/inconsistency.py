"""Inconsistency of domains on a landscape grid: how far another domain's risk is off where one domain's is as good."""

from typing import Any, cast

import torch
from torch import Tensor

from fishr.diagnostics.quantity import Quantity
from fishr.errors import InputError


def inconsistency(risks: Tensor, centre: tuple[int, ...], epsilon: float) -> Quantity:
    """I^ε(θ*) = max over ordered pairs A ≠ B of max |R_B(θ) − R_A(θ*)| over the θ connected to θ* with A at par.

    A is at par where |R_A(θ) − R_A(θ*)| ≤ ε. On a grid it is a lower bound of the maximum over the plane or line.

    Args:
        risks: [K, ...] risks of the domains on a grid of one or more axes, loss; NaN where not evaluated, and a point
            that misses a domain belongs to no region.
        centre: index of θ* on the grid.
        epsilon: ε ≥ 0, loss.

    Returns:
        0-dim, loss; 0 for a single domain.

    Raises:
        InputError: the centre does not lie on the grid or was not evaluated, or ε is negative.

    Example:
        >>> risks = torch.tensor([[1.0, 0.1, 0.0, 0.1, 1.0], [0.5, 0.4, 0.3, 0.2, 0.1]])
        >>> inconsistency(risks, (2,), 0.1).value  # in A's region, points 1 to 3, B is at most 0.4 from R_A(θ*) = 0
        tensor(0.4000)

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329), in the form of Ramé et al. 2022 (arXiv 2109.02934).
    """
    pairs = inconsistency_pairs(risks, centre, epsilon)
    others = pairs.value[~torch.eye(len(risks), dtype=torch.bool, device=risks.device)]
    value = others.max() if len(others) else risks.new_zeros(())
    return Quantity("inconsistency", value, (), "loss", pairs.route)


def inconsistency_pairs(risks: Tensor, centre: tuple[int, ...], epsilon: float) -> Quantity:
    """max |R_B(θ) − R_A(θ*)| over A's region, for every ordered pair (A, B).

    Args:
        risks: [K, ...] as in ``inconsistency``.
        centre: index of θ* on the grid.
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
    _check(risks, centre, epsilon)
    evaluated = ~risks.isnan().any(0)
    at_centre = risks[(slice(None), *centre)]
    rows = list[Tensor]()
    for own, start in zip(risks, at_centre, strict=True):
        region = connected_region(evaluated & ((own - start).abs() <= epsilon), centre)
        rows.append((risks[:, region] - start).abs().amax(1))
    shape = "×".join(map(str, risks.shape[1:]))
    return Quantity(
        "inconsistency_pairs",
        torch.stack(rows),
        ("domain", "domain"),
        "loss",
        f"connected regions on a grid of {shape} points, ε={epsilon:g}: a lower bound, blind between the points",
    )


def connected_region(inside: Tensor, centre: tuple[int, ...]) -> Tensor:
    """The connected part of a set of grid points that holds the centre; neighbours share a face.

    Args:
        inside: [...] which points belong to the set; the centre must.
        centre: index of a point.

    Returns:
        [...], bool.

    Example:
        >>> connected_region(torch.tensor([True, False, True, True]), (2,))
        tensor([False, False,  True,  True])
    """
    from scipy import ndimage

    labels, _ = cast(tuple[Any, int], ndimage.label(inside.numpy(force=True)))
    return torch.from_numpy(labels == labels[centre]).to(inside.device)


def _check(risks: Tensor, centre: tuple[int, ...], epsilon: float) -> None:
    grid = tuple(risks.shape[1:])
    if risks.ndim < 2 or len(centre) != len(grid) or any(not 0 <= i < n for i, n in zip(centre, grid, strict=True)):
        raise InputError(
            f"inconsistency: got centre {centre} and risks of shape {tuple(risks.shape)}, expected [K, grid…] "
            "and one index for each axis of the grid, on it"
        )
    if not epsilon >= 0:
        raise InputError(f"inconsistency: got epsilon {epsilon}, expected a number of at least 0")
    if risks[(slice(None), *centre)].isnan().any():
        raise InputError(
            f"inconsistency: got NaN at the centre {centre}, expected every domain's risk there; evaluate it first"
        )
