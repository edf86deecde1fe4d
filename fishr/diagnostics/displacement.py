"""Risks of all domains with the head's parameters moved, the head itself left where it is."""

import torch
from torch import Tensor

from fishr.diagnostics.inspection import Inspection
from fishr.losses import per_sample_losses
from fishr.statistics.pure_forward import pure_forward


def risks_at(seen: Inspection, step: Tensor) -> Tensor:
    """R_e(θ + δ) of every domain.

    Args:
        seen: the head and its data.
        step: [P], δ, parameter.

    Returns:
        [K], loss, differentiable by ``step``.

    Example:
        >>> seen = Inspection(torch.nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> bool((risks_at(seen, torch.zeros(8)) == seen.risks).all())
        True
    """
    tensors = {name: tensor.detach() for name, tensor in (*seen.head.named_parameters(), *seen.head.named_buffers())}
    moved = {name: tensors[name] + part for name, part in seen.layout.split(step).items()}
    logits = pure_forward(seen.head, torch.cat(seen.domain_features), {**tensors, **moved})
    losses = per_sample_losses(seen.loss, logits, seen.labels)
    return torch.stack([part.mean() for part in losses.split(list(seen.sizes))])
