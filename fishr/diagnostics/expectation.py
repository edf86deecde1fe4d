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

_COLUMNS, _SAMPLES = 8, 256
# Columns of a block that take the time of an eigenvalue, and of the ascents and draws of sharpness; iterations.
_TOPS, _SHARPNESS, _ITERATIONS = 50, 150, 20


def expected_seconds(
    scope: Scope, head: nn.Module, features: Tensor, labels: Tensor, sizes: tuple[int, ...], loss: Loss, rank: int
) -> float:
    """Return about how many seconds ``measure`` or ``measure_network`` will take; 0 where all is exact and fast."""
    # Products take most of the time of a head that is too large for its whole Hessian. A few are timed on some samples.
    estimation = Estimation()
    curvature = Curvature.of(
        head, features[:_SAMPLES], labels[:_SAMPLES], (len(features[:_SAMPLES]),), loss, estimation
    )
    if curvature.linear or curvature.layout.size <= WHOLE_LIMIT:
        return 0.0
    hessian = OperatorHessian(curvature.head, *curvature.seen.domain_samples[0], loss, estimation)
    vectors = torch.ones(hessian.size, _COLUMNS, dtype=hessian.like.dtype, device=hessian.like.device)
    # The first product also loads curvlinops.
    hessian.rounded(vectors[:, :1])
    start = time.perf_counter()
    float(hessian.rounded(vectors).sum())
    product = (time.perf_counter() - start) / _COLUMNS / curvature.seen.sizes[0] * sum(sizes)
    draws = estimation.products * estimation.repeats
    products = draws + _TOPS * rank
    products += _SHARPNESS if scope == "head" else 2 * draws
    if curvature.layered is None:
        # Trace and diagonal are estimates too, unless BackPACK has them, and so is the Takeuchi criterion.
        products += (0 if curvature.has_backpack else 2 * draws) + _ITERATIONS * estimation.products
    return product * products
