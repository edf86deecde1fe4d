"""How long measuring will take, from the time of a few products."""

import time

import torch
from torch import Tensor, nn

from fishr.diagnostics.curvature import Curvature
from fishr.diagnostics.hessian import WHOLE_LIMIT
from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.diagnostics.registry import Scope
from fishr.diagnostics.uncertainty import Estimation
from fishr.losses import Loss
from fishr.statistics.linear_heads import is_plain_linear
from fishr.types import Layout

_SAMPLES = 256
# Products that take the time of an eigenvalue, of ascents and draws of sharpness, and of what is exact; iterations.
_TOPS, _SHARPNESS, _REST, _ITERATIONS = 12, 90, 20, 20


def by_products(head: nn.Module, features: Tensor) -> bool:
    """Return whether the Hessian of a head is so large that it is known by its products alone."""
    return Layout.of(head).size > WHOLE_LIMIT and not (is_plain_linear(head) and features.ndim == 2)


def expected_seconds(
    scope: Scope, head: nn.Module, features: Tensor, labels: Tensor, sizes: tuple[int, ...], loss: Loss, rank: int
) -> float:
    """Return about how many seconds ``measure`` or ``measure_network`` will take; 0 where all is exact and fast."""
    if not by_products(head, features):
        return 0.0
    # Products take most of the time. One is timed on some samples.
    estimation = Estimation()
    curvature = Curvature.of(
        head, features[:_SAMPLES], labels[:_SAMPLES], (len(features[:_SAMPLES]),), loss, estimation
    )
    hessian = OperatorHessian(curvature.head, *curvature.seen.domain_samples[0], loss, estimation)
    vector = torch.ones(hessian.size, 1, dtype=hessian.like.dtype, device=hessian.like.device)
    # The first product also makes the graph.
    hessian.rounded(vector)
    start = time.perf_counter()
    float(hessian.rounded(vector).sum())
    product = (time.perf_counter() - start) / curvature.seen.sizes[0] * sum(sizes)
    draws = estimation.products * estimation.repeats
    products = _REST + _TOPS * (rank + 1) + 2 * estimation.products
    products += _SHARPNESS if scope == "head" else estimation.repeats * estimation.products
    if curvature.layered is None:
        # Trace and diagonal are estimates too, unless BackPACK has them, and so is the Takeuchi criterion.
        products += (0 if curvature.has_backpack else 2 * draws) + _ITERATIONS * estimation.products
    return product * products
