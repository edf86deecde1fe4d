"""Diagonal of the Fisher as a Gauss-Newton matrix, G = (1/n) Σ J_nᵀ A_n J_n with J_n = ∂f_n/∂θ."""

import torch
from torch import Tensor, nn

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import detached_tensors
from fishr.diagnostics.logit_curvature import LogitCurvature
from fishr.diagnostics.registry import diagnostic
from fishr.diagnostics.uncertainty import Estimate
from fishr.statistics.pure_forward import pure_forward
from fishr.types import Layout


@diagnostic("(loss/parameter)²", ("domain", "parameter"), section="curvature")
def fisher_diagonal(curvature: Curvature) -> Estimate:
    """diag F_e, F_e the Fisher of the model's own label distribution.

    For cross-entropy and logistic losses F is the generalized Gauss-Newton matrix, and for a linear head also the
    Hessian, exactly. For any other loss this is the Gauss-Newton matrix, which need not be a Fisher.

    Route: closed form (linear), BackPACK DiagGGNExact, Jacobians sample by sample. Exact: always.

    Source:
        Kunstner et al. 2019 (arXiv 1905.12558), on Fisher, empirical Fisher and Gauss-Newton.
    """
    seen = curvature.seen
    if curvature.linear:
        return curvature.hessian_diagonals
    if curvature.has_backpack:
        from fishr.diagnostics.backpack_curvature import backpack_diagonal

        found = [backpack_diagonal(curvature.head, z, y, seen.loss, "ggn") for z, y in seen.domain_samples]
        return Estimate(torch.stack(found), "BackPACK DiagGGNExact")
    pairs = zip(seen.domain_samples, curvature.of_logits.split(seen.sizes), strict=True)
    found = [gauss_newton_diagonal(curvature.head, z, a) for (z, _), a in pairs]
    return Estimate(torch.stack(found), "Jacobians of the logits, one sample after the other")


def gauss_newton_diagonal(head: nn.Module, features: Tensor, curvature: LogitCurvature) -> Tensor:
    """Return diag (1/n) Σ J_nᵀ A_n J_n [P] from the Jacobians themselves: any head, C backward passes a sample."""
    layout, tensors = Layout.of(head), detached_tensors(head)
    trainable = [tensors[name].requires_grad_() for name in layout.names]
    total = torch.zeros(layout.size, dtype=trainable[0].dtype, device=features.device)
    for n in range(len(features)):
        with torch.enable_grad():
            logits = pure_forward(head, features[n : n + 1], tensors)[0]
            rows = [torch.autograd.grad(out, trainable, retain_graph=True, materialize_grads=True) for out in logits]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        curved = curvature.rows(slice(n, n + 1)).apply(jacobian.unsqueeze(0))[0]
        total += (jacobian * curved).sum(0)
    return total / len(features)
