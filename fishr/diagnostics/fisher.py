"""Diagonal of the Fisher by its definition as a Gauss-Newton matrix, G = (1/n) Σ J_nᵀ A_n J_n with J_n = ∂f_n/∂θ."""

import torch
from torch import Tensor, nn

from fishr.diagnostics.hessian import Estimate
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.logit_curvature import LogitCurvature
from fishr.diagnostics.quantity import Quantity
from fishr.statistics.pure_forward import pure_forward
from fishr.types import Layout


@of_head
def fisher_diagonal(seen: Inspection) -> Quantity:
    """diag F_e, F_e the Fisher of the model's own label distribution.

    For cross-entropy and logistic losses F is the generalised Gauss-Newton matrix, and for a linear head also the
    Hessian, exactly. For any other loss this is the Gauss-Newton matrix, which need not be a Fisher.

    Returns:
        [K, P], (loss/parameter)².

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> fisher_diagonal(head, *data).value.shape
        torch.Size([2, 8])

    Source:
        Kunstner et al. 2019 (arXiv 1905.12558), on Fisher, empirical Fisher and Gauss-Newton.
    """
    found = _diagonals(seen)
    return Quantity("fisher_diagonal", found.value, ("domain", "parameter"), "(loss/parameter)²", found.route)


def _diagonals(seen: Inspection) -> Estimate:
    if seen.linear:
        return seen.hessian_diagonals
    from fishr.diagnostics.backpack_curvature import backpack_diagonal, has_backpack_curvature

    pairs = list(zip(seen.domain_features, seen.domain_labels, strict=True))
    if has_backpack_curvature(seen.head, seen.features, seen.loss):
        found = [backpack_diagonal(seen.head, z, y, seen.loss, "ggn") for z, y in pairs]
        return Estimate(torch.stack(found), "BackPACK DiagGGNExact")
    curvatures = seen.curvature.split(seen.sizes)
    found = [gauss_newton_diagonal(seen.head, z, a) for z, a in zip(seen.domain_features, curvatures, strict=True)]
    return Estimate(torch.stack(found), "Jacobians of the logits, one sample after the other")


def gauss_newton_diagonal(head: nn.Module, features: Tensor, curvature: LogitCurvature) -> Tensor:
    """diag (1/n) Σ J_nᵀ A_n J_n from the Jacobians themselves: any head, C backward passes a sample.

    Args:
        head: any module that treats the rows of its input independently.
        features: [n, ...] what it reads.
        curvature: A_n of its logits.

    Returns:
        [P], loss/parameter².

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> from fishr.diagnostics.logit_curvature import logit_curvature
        >>> head, features = nn.Sequential(nn.Linear(3, 2), nn.GELU()), torch.randn(5, 3)
        >>> curvature = logit_curvature(CrossEntropy(), head(features), torch.zeros(5).long())
        >>> gauss_newton_diagonal(head, features, curvature).shape
        torch.Size([8])
    """
    layout = Layout.of(head)
    tensors = {name: tensor.detach() for name, tensor in (*head.named_parameters(), *head.named_buffers())}
    trainable = [tensors[name].requires_grad_() for name in layout.names]
    total = torch.zeros(layout.size, dtype=trainable[0].dtype, device=features.device)
    for n in range(len(features)):
        with torch.enable_grad():
            logits = pure_forward(head, features[n : n + 1], tensors)[0]
            rows = [
                torch.autograd.grad(logit, trainable, retain_graph=True, materialize_grads=True) for logit in logits
            ]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        curved = curvature.rows(slice(n, n + 1)).apply(jacobian.unsqueeze(0))[0]
        total += (jacobian * curved).sum(0)
    return total / len(features)
