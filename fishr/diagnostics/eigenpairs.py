"""The largest eigenvalues of a Hessian that is known by its products, through scipy's ARPACK."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from fishr.diagnostics.hessian import Eigenpairs
from fishr.diagnostics.operators import quiet, scipy_operator


def largest_eigenpairs(
    apply: Callable[[Tensor], Tensor], size: int, like: Tensor, rank: int, route: str, tolerance: float = 0.0
) -> Eigenpairs:
    """The ``rank`` algebraically largest eigenpairs by ``scipy.sparse.linalg.eigsh``, from a fixed start.

    Args:
        apply: V ↦ H V for [P, M].
        size: P, larger than ``rank``.
        like: a tensor of the type and device that ``apply`` works in.
        rank: how many.
        route: what the products are.
        tolerance: relative accuracy of the eigenvalues; 0 is what the type can hold.

    Returns:
        Eigenpairs with the residual norms ‖Hu − λu‖.

    Example:
        >>> scales = torch.arange(10.0).unsqueeze(1)
        >>> found = largest_eigenpairs(lambda vectors: scales * vectors, 10, scales, 2, "a diagonal matrix")
        >>> [round(value, 4) for value in found.values.tolist()]
        [9.0, 8.0]
    """
    import numpy
    from scipy.sparse.linalg import eigsh
    from threadpoolctl import threadpool_limits

    start = numpy.random.default_rng(0).standard_normal(size)
    # ARPACK's own work is on short vectors: threads of numpy's BLAS would only take the cores from torch's products.
    with quiet(), threadpool_limits(1, user_api="blas"):
        operator = scipy_operator(apply, size, like)
        found = cast(Any, eigsh)(
            operator, k=rank, which="LA", v0=start.astype(operator.dtype), ncv=min(size, 3 * rank + 1), tol=tolerance
        )
    values, vectors = (torch.from_numpy(part[..., ::-1].copy()).to(like.device) for part in found)
    residuals = torch.linalg.vector_norm(apply(vectors) - vectors * values, dim=0)
    return Eigenpairs(values, vectors, residuals, f"scipy eigsh on {route}")
