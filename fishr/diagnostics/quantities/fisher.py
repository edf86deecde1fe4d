"""Diagonal of the Fisher as a Gauss-Newton matrix, G = (1/n) Σ J_nᵀ A_n J_n with J_n = ∂f_n/∂θ."""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import logits_at, no_step
from fishr.diagnostics.logit_curvature import LogitCurvature
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate


@diagnostic("(loss/parameter)²", ("domain", "parameter"), section="curvature")
def fisher_diagonal(curvature: Curvature) -> Estimate:
    """diag F_e, F_e the Fisher of the model's own label distribution.

    Meaning: curvature of the model's predicted distribution along each parameter, whatever the labels. Large: a
    change of this parameter changes predictions strongly.

    For cross-entropy and logistic losses F is the generalized Gauss-Newton matrix, and for a linear head also the
    Hessian, exactly. For any other loss this is the Gauss-Newton matrix, which need not be a Fisher.

    Route: closed form (linear layers), BackPACK DiagGGNExact, Jacobians sample by sample. Exact: always.

    Source:
        Kunstner et al. 2019 (arXiv 1905.12558), on Fisher, empirical Fisher and Gauss-Newton.
    """
    seen = curvature.seen
    if curvature.linear:
        return curvature.hessian_diagonals
    if curvature.layered is not None:
        return Estimate(torch.stack([own.diagonal() for own in curvature.layered]), "closed form of linear layers")
    if curvature.has_backpack:
        return curvature.backpack_diagonals("ggn")
    pairs = zip(seen.domain_samples, curvature.of_logits.split(seen.sizes), strict=True)
    found = [gauss_newton_diagonal(curvature.head, z, a) for (z, _), a in pairs]
    return Estimate(torch.stack(found), "Jacobians of the logits, one sample after the other")


def gauss_newton_diagonal(head: nn.Module, features: Tensor, curvature: LogitCurvature) -> Tensor:
    """Return diag (1/n) Σ J_nᵀ A_n J_n [P] from the Jacobians themselves: any head, C backward passes a sample."""
    step = no_step(head)
    total = torch.zeros_like(step)
    for n in range(len(features)):
        sample = slice(n, n + 1)
        jacobian = torch.autograd.functional.jacobian(partial(logits_at, head, features[sample]), step)
        curved = curvature.rows(sample).apply(cast(Tensor, jacobian))
        total += (jacobian * curved).sum((0, 1))
    return total / len(features)
