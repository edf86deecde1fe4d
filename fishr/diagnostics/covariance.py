"""Covariances C_e of the per-sample gradients: inner products of each other and of the Hessians.

Held whole for small heads; otherwise only Gram matrices of the samples exist, and beyond a size nothing is computed.
"""

import torch
from torch import Tensor

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import WHOLE_LIMIT, DenseHessian
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.uncertainty import Estimate
from fishr.statistics.distances import covariance_products
from fishr.statistics.functional_moments import per_sample_gradients

# Samples up to which Gram matrices are made, and per-sample gradients held: 512 MiB and 1 GiB in float64.
GRAM_LIMIT = 8192
GRADIENT_ELEMENTS = 1 << 27
_CHUNK = 1 << 24


def domain_gradients(curvature: Curvature, domain: int) -> Tensor:
    """Return the per-sample gradients of one domain, [n, P]."""
    features, labels = curvature.seen.domain_samples[domain]
    rows = max(1, _CHUNK // curvature.layout.size)
    with torch.no_grad():
        parts = [
            per_sample_gradients(curvature.head, z, y, curvature.seen.loss)
            for z, y in zip(features.split(rows), labels.split(rows), strict=True)
        ]
    return torch.cat(parts)


def whole_covariance(gradients: Tensor) -> Tensor:
    """Return C = (1/n) Σ (g_n − ḡ)(g_n − ḡ)ᵀ, [P, P]."""
    centered = gradients - gradients.mean(0)
    return centered.T @ centered / len(centered)


def covariance_inner_products(curvature: Curvature) -> Estimate:
    """Return ⟨C_A, C_B⟩ [K, K]; NaN with the reason in the route where it is too large."""
    seen, size = curvature.seen, curvature.layout.size
    samples = sum(seen.sizes)
    if _whole(curvature):
        stacked = torch.stack(_covariances(curvature)).flatten(1)
        return Estimate(stacked @ stacked.T, "whole covariance matrices")
    if reason := _too_large(curvature):
        return Estimate(seen.domain_losses.new_full((seen.domains, seen.domains), torch.nan), reason)
    if curvature.linear:
        return Estimate(covariance_products(seen.gram, seen.sizes), f"closed-form Gram matrix of {samples} samples")
    gradients = torch.cat([domain_gradients(curvature, domain) for domain in range(seen.domains)])
    route = f"Gram matrix of {samples} per-sample gradients of {size} parameters"
    return Estimate(covariance_products(gradients @ gradients.T, seen.sizes), route)


def covariance_hessian_products(curvature: Curvature) -> Estimate:
    """Return ⟨C_e, H_e⟩ = mean g_nᵀH g_n − ḡᵀH ḡ [K]; NaN with the reason in the route where it is too large."""
    seen = curvature.seen
    if _whole(curvature):
        pairs = zip(_covariances(curvature), curvature.hessians, strict=True)
        values = [(c * h.whole).sum() for c, h in pairs if isinstance(h, LinearHessian | DenseHessian)]
        return Estimate(torch.stack(values), "whole matrices")
    if reason := _too_large(curvature):
        return Estimate(torch.full_like(seen.domain_losses, torch.nan), reason)
    values, deltas = list[Tensor](), seen.per_domain(seen.deltas)
    for domain, hessian in enumerate(curvature.hessians):
        if isinstance(hessian, LinearHessian):
            quadratics = hessian.quadratic(deltas[domain])
        else:
            parts = domain_gradients(curvature, domain).split(32)
            quadratics = torch.cat([(part.T * hessian.apply(part.T)).sum(0) for part in parts])
        mean = seen.moments.mean[domain].unsqueeze(1)
        values.append(quadratics.mean() - (mean * hessian.apply(mean)).sum())
    return Estimate(torch.stack(values), "quadratic forms of the per-sample gradients")


def _covariances(curvature: Curvature) -> tuple[Tensor, ...]:
    return tuple(whole_covariance(domain_gradients(curvature, domain)) for domain in range(curvature.seen.domains))


def _whole(curvature: Curvature) -> bool:
    size = curvature.layout.size
    return size <= WHOLE_LIMIT and size * max(curvature.seen.sizes) <= GRADIENT_ELEMENTS


def _too_large(curvature: Curvature) -> str:
    samples, size = sum(curvature.seen.sizes), curvature.layout.size
    if samples > GRAM_LIMIT:
        return f"not computed: N={samples} > {GRAM_LIMIT} samples and P={size} parameters; take fewer samples"
    if not curvature.linear and samples * size > GRADIENT_ELEMENTS:
        return f"not computed: {samples}×{size} per-sample gradients > {GRADIENT_ELEMENTS} numbers; take fewer samples"
    return ""
