"""Hessians of the domains' risks by a linear head's parameters, in closed form and with a graph.

The Hessian of domain e is H_e = (1/n) Σ_n A_n ⊗ z̃_n z̃_nᵀ with A_n = ∂²ℓ_n/∂f∂f and z̃ the features and a 1 for the bias.
"""

import torch
from torch import Tensor

from fishr.errors import InputError
from fishr.losses import loss_deltas
from fishr.observation import Observation
from fishr.penalties.penalty import require_present
from fishr.statistics.linear_heads import has_bias, linear_moments


def require_linear(seen: Observation, name: str, least_domains: int) -> None:
    """Refuse a head without closed form, and a batch with samples of fewer domains."""
    require_present(seen, name, least_domains)
    if not seen.linear:
        raise InputError(
            f"{name}: got {type(seen.head).__qualname__} as the head, or other layers than the head's, expected one "
            "torch.nn.Linear, whose Hessian has a closed form"
        )


def products(seen: Observation, vectors: Tensor) -> Tensor:
    """Return H_e v_e, [K, P], of one vector for each domain, [K, P] or [1, P]."""
    rows = vectors.expand(seen.domains, -1)
    outputs, width = seen.logits.shape[1], seen.features.shape[1]
    weights, biases = rows[:, : outputs * width].unflatten(1, (outputs, width)), rows[:, outputs * width :]
    moved = [z @ w.T for z, w in zip(seen.per_domain(seen.features), weights, strict=True)]
    directions = torch.cat([m + b if len(b) else m for m, b in zip(moved, biases, strict=True)])
    curved = _along(seen, directions)
    return linear_moments(curved, seen.features, seen.sizes, bias=has_bias(seen.head)).mean


def diagonals(seen: Observation) -> Tensor:
    """Return the diagonals of the H_e, [K, P]."""
    diagonal = logit_hessians(seen).diagonal(dim1=1, dim2=2)
    return linear_moments(diagonal, seen.features.square(), seen.sizes, bias=has_bias(seen.head)).mean


def inner_products(seen: Observation) -> Tensor:
    """Return ⟨H_e, H_f⟩ of all pairs of domains, [K, K], through matrices of samples, [N, N]."""
    curvatures, features = logit_hessians(seen).flatten(1), seen.features
    gram = (curvatures @ curvatures.T) * (features @ features.T + float(has_bias(seen.head))).square()
    blocks = [[part.mean() for part in row.split(list(seen.sizes), 1)] for row in gram.split(list(seen.sizes))]
    return torch.stack([torch.stack(row) for row in blocks])


def logit_hessians(seen: Observation) -> Tensor:
    """Return A_n, [N, C, C]."""
    directions = torch.eye(seen.logits.shape[1], dtype=seen.logits.dtype, device=seen.logits.device)
    return torch.stack([_along(seen, one.expand_as(seen.logits)) for one in directions], 1)


def _along(seen: Observation, directions: Tensor) -> Tensor:
    """Return A_n u_n, [N, C], of directions [N, C]: a vector–Jacobian product of the deltas, as A_n is symmetric."""

    def deltas(logits: Tensor) -> Tensor:
        return loss_deltas(seen.loss, logits, seen.labels)

    _, vjp, *_ = torch.func.vjp(deltas, seen.logits)
    return vjp(directions)[0]
