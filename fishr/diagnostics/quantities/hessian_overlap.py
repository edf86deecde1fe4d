"""Overlap of the domains' directions of curvature."""

import torch
from torch import Tensor

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import Eigenpairs
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate, jackknife, joined_routes


@diagnostic("1", ("domain", "domain"), section="overlap")
def eigenspace_overlaps(curvature: Curvature, *, rank: int = 5) -> Estimate:
    """‖U_AᵀU_B‖_F²/k for the top-k eigenspaces of every pair of domains: 1 for the same space, k/P for random ones.

    Meaning: share of the most curved directions that two domains have in common. Large: at 1 both domains are most
    curved along the same directions.

    Route: the top eigenvectors. Exact: up to the residuals and the gap to the next eigenvalue.

    Args:
        rank: k at most; eigenvectors of eigenvalues that are zero up to rounding are arbitrary and left out, in all
            domains as many as in the one with the most.

    Returns:
        [K, K], 1. The error follows to first order from the eigenvectors' residuals and the gap to the next
        eigenvalue: it is large where the gap is so small that the eigenspace is arbitrary.
    """
    found, further = curvature.tops(rank), curvature.tops(rank + 1)
    precision = torch.finfo(found[0].values.dtype).eps * curvature.layout.size
    used = max(1, min(int((pairs.values > precision * pairs.values[0]).sum()) for pairs in found))
    bases = [pairs.vectors[:, :used] for pairs in found]
    cosines = torch.stack([torch.stack([torch.linalg.svdvals(a.T @ b).square() for b in bases]) for a in bases])
    angles = torch.stack([_angles(pairs, used) for pairs in further])
    # Turning one space by an angle moves Σcos² by 2·angle·‖cos·sin‖ at most: nothing for a space with itself.
    turned = 2 * (cosines * (1 - cosines).clamp(min=0)).sum(2).sqrt() / used
    error = (turned * (angles[:, None] + angles[None, :])).fill_diagonal_(0.0)
    route = f"top {used} of {rank} eigenvectors: " + joined_routes(pairs.route for pairs in found)
    return Estimate(cosines.sum(2) / used, route, error)


@diagnostic("1", section="overlap")
def hessian_mean_gap(curvature: Curvature, *, floor: float = 1e-6) -> Estimate:
    """Σ_i log mean_e h_e,i − mean_e log h_e,i ≥ 0 of the diagonals: arithmetic against geometric mean over domains.

    Meaning: how much curvature along each parameter varies between domains, in logarithms. Large: directions that
    are flat in one domain are curved in another.

    Zero where all domains are curved alike; a direction that is flat in one domain and curved in another counts most.

    Route: diag H. Exact: as hessian_diagonal.

    Args:
        floor: entries below ``floor`` times the largest of all domains are raised to it, for their logarithm.

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329).
    """

    def gap(entries: Tensor) -> Tensor:
        raised = entries.clamp(min=floor * entries.max())
        return (raised.mean(0).log() - raised.log().mean(0)).sum()

    diagonals = curvature.hessian_diagonals
    share = (diagonals.value < floor * diagonals.value.max()).to(diagonals.value.dtype).mean()
    route = f"{diagonals.route}; {share:.1%} of the entries raised to {floor:g} of the largest"
    return jackknife(gap, diagonals, smooth=False, route=route)


def _angles(pairs: Eigenpairs, used: int) -> Tensor:
    """Bound ‖sin Θ‖_F between found and exact eigenvectors by ‖residuals‖/gap (Davis and Kahan)."""
    if len(pairs.values) == used:  # the whole space
        return torch.zeros_like(pairs.values[0])
    gap = pairs.values[used - 1] - pairs.values[used]
    rounding = torch.finfo(gap.dtype).eps * pairs.values[0]
    residual = torch.linalg.vector_norm(pairs.residuals[:used]) + rounding
    return (residual / gap.clamp(min=1e-30)).clamp(max=used**0.5)
