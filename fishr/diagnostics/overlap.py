"""Whether domains are curved in the same directions: rows 19 and 20 of what is looked at."""

import torch
from torch import Tensor

from fishr.diagnostics.hessian import Eigenpairs
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.sampling import jackknife


@of_head
def eigenspace_overlaps(seen: Inspection, *, rank: int = 5) -> Quantity:
    """‖U_AᵀU_B‖_F²/k for the top-k eigenspaces of every pair of domains: 1 for the same space, k/P for random ones.

    Args:
        seen: the head and its data.
        rank: k at most; eigenvectors of eigenvalues that are zero up to rounding are arbitrary and left out, in all
            domains as many as in the one with the most.

    Returns:
        [K, K], 1. The error follows to first order from the eigenvectors' residuals and the gap to the next
        eigenvalue: it is large where the gap is so small that the eigenspace is arbitrary.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool((eigenspace_overlaps(head, *data, rank=2).value.diagonal() > 0.999).all())
        True
    """
    found, further = seen.tops(rank), seen.tops(rank + 1)
    precision = torch.finfo(found[0].values.dtype).eps * seen.layout.size
    used = max(1, min(int((pairs.values > precision * pairs.values[0]).sum()) for pairs in found))
    bases = [pairs.vectors[:, :used] for pairs in found]
    cosines = torch.stack([torch.stack([torch.linalg.svdvals(a.T @ b).square() for b in bases]) for a in bases])
    angles = torch.stack([_angles(pairs, used) for pairs in further])
    # Turning one space by an angle moves Σcos² by 2·angle·‖cos·sin‖ at most: nothing for a space with itself.
    turned = 2 * (cosines * (1 - cosines).clamp(min=0)).sum(2).sqrt() / used
    error = (turned * (angles[:, None] + angles[None, :])).fill_diagonal_(0.0)
    route = f"top {used} of {rank} eigenvectors: " + "; ".join(dict.fromkeys(pairs.route for pairs in found))
    return Quantity("eigenspace_overlaps", cosines.sum(2) / used, ("domain", "domain"), "1", route, error)


@of_head
def hessian_mean_gap(seen: Inspection, *, floor: float = 1e-6) -> Quantity:
    """Σ_i log mean_e h_e,i − mean_e log h_e,i ≥ 0 of the diagonals: arithmetic against geometric mean over domains.

    Zero where all domains are curved alike; a direction that is flat in one domain and curved in another counts most.

    Args:
        seen: the head and its data.
        floor: entries below ``floor`` times the largest of all domains are raised to it, for their logarithm.

    Returns:
        0-dim, 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool(hessian_mean_gap(head, *data).value >= 0)
        True

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329).
    """

    def gap(entries: Tensor) -> Tensor:
        raised = entries.clamp(min=floor * entries.max())
        return (raised.mean(0).log() - raised.log().mean(0)).sum()

    diagonals = seen.hessian_diagonals
    value, error = jackknife(gap, diagonals, smooth=False)
    share = (diagonals.value < floor * diagonals.value.max()).to(value.dtype).mean()
    route = f"{diagonals.route}; {share:.1%} of the entries raised to {floor:g} of the largest"
    return Quantity("hessian_mean_gap", value, (), "1", route, error)


def _angles(pairs: Eigenpairs, used: int) -> Tensor:
    """‖sin Θ‖_F between the first eigenvectors as found and as they are: at most ‖residuals‖/gap (Davis and Kahan)."""
    if len(pairs.values) == used:  # the whole space
        return torch.zeros_like(pairs.values[0])
    gap = pairs.values[used - 1] - pairs.values[used]
    rounding = torch.finfo(gap.dtype).eps * pairs.values[0]
    residual = torch.linalg.vector_norm(pairs.residuals[:used]) + rounding
    return (residual / gap.clamp(min=1e-30)).clamp(max=used**0.5)
