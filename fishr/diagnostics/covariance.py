"""Full covariances of the per-sample gradients: inner products of each other and of the Hessians.

Held whole for small heads; otherwise only Gram matrices of the samples exist, and beyond a size nothing is computed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fishr.diagnostics.dense_hessian import WHOLE_LIMIT, DenseHessian
from fishr.diagnostics.hessian import Estimate
from fishr.diagnostics.inspection import Inspection
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.statistics.distances import covariance_products
from fishr.statistics.functional_moments import per_sample_gradients

# Samples up to which Gram matrices are made, and per-sample gradients held: 512 MiB and 1 GiB in float64.
GRAM_LIMIT = 8192
GRADIENT_ELEMENTS = 1 << 27
_CHUNK = 1 << 24


def domain_gradients(seen: Inspection, domain: int) -> Tensor:
    """[n, P], the per-sample gradients of one domain, loss/parameter.

    Example:
        >>> head, features, labels = torch.nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> domain_gradients(Inspection(head, features, labels, (2, 3)), 1).shape
        torch.Size([3, 8])
    """
    features, labels = seen.domain_features[domain], seen.domain_labels[domain]
    rows = max(1, _CHUNK // seen.layout.size)
    with torch.no_grad():
        parts = [
            per_sample_gradients(seen.head, z, y, seen.loss)
            for z, y in zip(features.split(rows), labels.split(rows), strict=True)
        ]
    return torch.cat(parts)


def whole_covariance(gradients: Tensor) -> Tensor:
    """[P, P], C = (1/n) Σ (g_n − ḡ)(g_n − ḡ)ᵀ.

    Example:
        >>> whole_covariance(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        tensor([[1., 0.],
                [0., 0.]])
    """
    centred = gradients - gradients.mean(0)
    return centred.T @ centred / len(centred)


def covariance_inner_products(seen: Inspection) -> Estimate:
    """[K, K], ⟨C_A, C_B⟩, (loss/parameter)⁴; NaN with the reason in the route where it is too large.

    Example:
        >>> head, features, labels = torch.nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> covariance_inner_products(Inspection(head, features, labels, (2, 3))).value.shape
        torch.Size([2, 2])
    """
    samples, size = sum(seen.sizes), seen.layout.size
    if _whole(seen):
        stacked = torch.stack(covariances(seen)).flatten(1)
        return Estimate(stacked @ stacked.T, "whole covariance matrices")
    if reason := _too_large(seen):
        return Estimate(torch.full((seen.domains, seen.domains), torch.nan, dtype=seen.risks.dtype), reason)
    if seen.linear:
        return Estimate(covariance_products(seen.gram, seen.sizes), f"closed-form Gram matrix of {samples} samples")
    gradients = torch.cat([domain_gradients(seen, domain) for domain in range(seen.domains)])
    route = f"Gram matrix of {samples} per-sample gradients of {size} parameters"
    return Estimate(covariance_products(gradients @ gradients.T, seen.sizes), route)


def covariance_hessian_products(seen: Inspection) -> Estimate:
    """[K], ⟨C_e, H_e⟩ = mean g_nᵀH g_n − ḡᵀH ḡ; NaN with the reason in the route where it is too large.

    Example:
        >>> head, features, labels = torch.nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> covariance_hessian_products(Inspection(head, features, labels, (2, 3))).value.shape
        torch.Size([2])
    """
    if _whole(seen):
        pairs = zip(covariances(seen), seen.hessians, strict=True)
        values = [(c * h.whole).sum() for c, h in pairs if isinstance(h, LinearHessian | DenseHessian)]
        return Estimate(torch.stack(values), "whole matrices")
    if reason := _too_large(seen):
        return Estimate(torch.full((seen.domains,), torch.nan, dtype=seen.risks.dtype), reason)
    values, deltas = list[Tensor](), seen.deltas.split(list(seen.sizes))
    for domain, hessian in enumerate(seen.hessians):
        if isinstance(hessian, LinearHessian):
            quadratics = hessian.quadratic(deltas[domain], seen.domain_features[domain])
        else:
            gradients = domain_gradients(seen, domain)
            quadratics = _in_columns(hessian.apply, gradients)
        mean = seen.moments.mean[domain].unsqueeze(1)
        values.append(quadratics.mean() - (mean * hessian.apply(mean)).sum())
    return Estimate(torch.stack(values), "quadratic forms of the per-sample gradients")


def _in_columns(apply: Callable[[Tensor], Tensor], gradients: Tensor) -> Tensor:
    return torch.cat([(part.T * apply(part.T)).sum(0) for part in gradients.split(32)])


def covariances(seen: Inspection) -> tuple[Tensor, ...]:
    """[P, P] for each domain; for small heads.

    Example:
        >>> head, features, labels = torch.nn.Linear(3, 2), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
        >>> [tuple(c.shape) for c in covariances(Inspection(head, features, labels, (2, 3)))]
        [(8, 8), (8, 8)]
    """
    return tuple(whole_covariance(domain_gradients(seen, domain)) for domain in range(seen.domains))


def _whole(seen: Inspection) -> bool:
    return seen.layout.size <= WHOLE_LIMIT and seen.layout.size * max(seen.sizes) <= GRADIENT_ELEMENTS


def _too_large(seen: Inspection) -> str:
    samples, size = sum(seen.sizes), seen.layout.size
    if samples > GRAM_LIMIT:
        return f"not computed: N={samples} > {GRAM_LIMIT} samples and P={size} parameters; take fewer samples"
    if not seen.linear and samples * size > GRADIENT_ELEMENTS:
        return f"not computed: {samples}×{size} per-sample gradients > {GRADIENT_ELEMENTS} numbers; take fewer samples"
    return ""
