"""Inconsistency of domains to second order: row 18 of what is looked at."""

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from fishr.diagnostics.hessian import Estimate, Hessian, together
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.operators import quiet, scipy_operator
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.range_space import compact, range_space, stand_in, whole_if_small
from fishr.diagnostics.sampling import jackknife

_PAIRS = ("domain", "domain")
_TOLERANCE = 1e-3
# Dimensions, of the span of a linear head's features or of the parameters, up to which a pair takes seconds.
SIZE_LIMIT = 16384


@of_head
def inconsistency_second_order(seen: Inspection, *, epsilon: float = 0.1, ridge: float = 1e-3) -> Quantity:
    """The largest entry of ``inconsistency_second_order_pairs`` with A ≠ B.

    Args:
        seen: the head and its data.
        epsilon: ε, loss.
        ridge: as a share of the largest eigenvalue of H_A.

    Returns:
        0-dim, loss; 0 for a single domain.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> inconsistency_second_order(head, *data).axes
        ()
    """
    pairs = inconsistency_second_order_pairs.of(seen, epsilon=epsilon, ridge=ridge)
    return _largest("inconsistency_second_order", pairs)


@of_head
def inconsistency_second_order_pairs(seen: Inspection, *, epsilon: float = 0.1, ridge: float = 1e-3) -> Quantity:
    """max(|Δ|, |Δ + ε λ_max((H_A + r)⁻¹H_B)|), Δ = R_B − R_A, on the range of H_A with r = ridge·λ_max(H_A).

    It is how far R_B gets from R_A(θ) in the region ½δᵀH_Aδ ≤ ε if both gradients vanish at θ. Directions in which A
    is not curved are projected out: along them B's risk would change without end. For a head that is not linear and
    too large to hold its Hessian the Gauss-Newton matrices take the Hessians' place.

    Args:
        seen: the head and its data.
        epsilon: ε, loss.
        ridge: as a share of the largest eigenvalue of H_A.

    Returns:
        [K, K], loss; row A, column B; NaN with the reason in the route where it is too large.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> inconsistency_second_order_pairs(head, *data, epsilon=0.0).value.diagonal()
        tensor([0., 0.])

    Source:
        Parascandolo et al. 2021 (arXiv 2009.00329) and Ramé et al. 2022 (arXiv 2109.02934).
    """
    order = range(seen.domains)
    found = together(
        [
            together([seen.once(("ratio", a, b, ridge), partial(_ratio, seen, a, b, ridge)) for b in order])
            for a in order
        ]
    )
    value, error = _furthest(seen.risks, epsilon * found.value), None
    if found.error is not None:
        # Without the term of the Hessians |Δ| is exact.
        least = _furthest(seen.risks, torch.zeros_like(value))
        most = _furthest(seen.risks, epsilon * (found.value + found.error))
        error = torch.where(most > least, epsilon * found.error, 0.0)
    return Quantity("inconsistency_second_order_pairs", value, _PAIRS, "loss", f"ε={epsilon:g}, {found.route}", error)


@of_head
def inconsistency_diagonal_proxy(seen: Inspection, *, epsilon: float = 0.1, ridge: float = 1e-3) -> Quantity:
    """max over pairs A ≠ B of max(|Δ|, |Δ + ε max_i h_B,i/(h_A,i + r)|) of the diagonals, r = ridge·max h_A: a proxy.

    It looks along the parameters' own axes alone and can be many times smaller than ``inconsistency_second_order``.

    Args:
        seen: the head and its data.
        epsilon: ε, loss.
        ridge: as a share of the largest entry of h_A; entries of h_A that are not positive are left out.

    Returns:
        0-dim, loss; 0 for a single domain.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> inconsistency_diagonal_proxy(head, *data).axes
        ()
    """

    def furthest(diagonals: Tensor) -> Tensor:
        rows = list[Tensor]()
        for own in diagonals:
            ratios = diagonals / (own + ridge * own.max().clamp(min=0))
            rows.append(ratios.masked_fill(own <= 0, -torch.inf).amax(1).clamp(min=0))
        return _furthest(seen.risks, epsilon * torch.stack(rows))

    value, error = jackknife(furthest, seen.hessian_diagonals, smooth=False)
    route = f"a proxy: axes of the parameters alone; {seen.hessian_diagonals.route}, ε={epsilon:g}, ridge {ridge:g}"
    return _largest("inconsistency_diagonal_proxy", Quantity("pairs", value, _PAIRS, "loss", route, error))


def _furthest(risks: Tensor, added: Tensor) -> Tensor:
    """[K, K], max(|Δ|, |Δ + added|), Δ = R_B − R_A."""
    difference = risks[None, :] - risks[:, None]
    return torch.maximum(difference.abs(), (difference + added).abs())


def _largest(name: str, pairs: Quantity) -> Quantity:
    others = ~torch.eye(len(pairs.value), dtype=torch.bool, device=pairs.value.device)
    if not others.any():
        return Quantity(name, pairs.value.new_zeros(()), (), "loss", pairs.route)
    place = pairs.value[others].argmax()
    error = None if pairs.error is None else pairs.error[others][place]
    return Quantity(name, pairs.value[others][place], (), "loss", pairs.route, error)


def _ratio(seen: Inspection, a: int, b: int, ridge: float) -> Estimate:
    """λ_max((H_A + r)⁻¹H_B) on the range of H_A."""
    own, other = seen.hessians[a], seen.hessians[b]
    below = compact(own)
    if isinstance(own, LinearHessian) and isinstance(other, LinearHessian):
        above: Hessian = other.onto(own)
    else:
        above = compact(other)
    matrices = whole_if_small(below), whole_if_small(above)
    if matrices[0] is not None and matrices[1] is not None:
        whitener = range_space(matrices[0], ridge).whitener
        values = torch.linalg.eigvalsh(whitener.T @ matrices[1] @ whitener)
        value = values[-1] if len(values) else values.new_zeros(())
        return Estimate(value, f"eigh on the range of H_A, ridge {ridge:g}·λ_max(H_A), its null space projected out")
    if a == b:
        value = torch.full_like(seen.risks[a], 1 / (1 + ridge))
        return Estimate(value, "λ/(λ + r) of a domain beside itself")
    if below.size > SIZE_LIMIT:
        reason = f"not computed: {below.size} > {SIZE_LIMIT} dimensions of curvature; take fewer samples"
        return Estimate(torch.full_like(seen.risks[a], torch.nan), reason)
    return largest_ratio(below, above, ridge * float(_largest_eigenvalue(seen, a, below)), ridge)


def _largest_eigenvalue(seen: Inspection, domain: int, below: Hessian) -> Tensor:
    # A Gauss-Newton matrix that stands for a Hessian has eigenvalues of its own.
    linear = isinstance(seen.hessians[domain], LinearHessian)
    return (seen.tops(1)[domain] if linear else below.top(1)).values[0]


def largest_ratio(below: Hessian, above: Hessian, shift: float, ridge: float) -> Estimate:
    """λ_max((A + shift)⁻¹B) by scipy's ``eigsh`` with conjugate gradients for the inverse.

    Args:
        below: A, without negative eigenvalues.
        above: B, of the same size.
        shift: added to A, loss/parameter²; more than 0.
        ridge: the shift as a share of the largest eigenvalue of A, for the route.

    Returns:
        The eigenvalue. Its error is the residual r = Bu − λMu, M = A + shift, in the norm of the problem:
        an eigenvalue lies within (rᵀM⁻¹r / uᵀMu)^½.

    Example:
        >>> from fishr.diagnostics.dense_hessian import DenseHessian
        >>> one = torch.eye(12, dtype=torch.float64)
        >>> found = largest_ratio(DenseHessian(one), DenseHessian(3 * one), shift=0.5, ridge=0.5)
        >>> round(float(found.value), 6)
        2.0
    """
    import numpy
    from scipy.sparse.linalg import cg, eigsh
    from threadpoolctl import threadpool_limits

    size, like = below.size, below.like

    def shifted(vectors: Tensor) -> Tensor:
        return below.apply(vectors) + shift * vectors

    with quiet(), threadpool_limits(1, user_api="blas"):
        numerator, denominator = scipy_operator(above.apply, size, like), scipy_operator(shifted, size, like)

        def solve(vectors: Tensor) -> Tensor:
            right = vectors.squeeze(1).numpy(force=True)
            return torch.from_numpy(cast(Any, cg)(denominator, right, rtol=_TOLERANCE / 10)[0]).unsqueeze(1)

        start = numpy.random.default_rng(0).standard_normal(size).astype(numerator.dtype)
        inverse = scipy_operator(solve, size, like)
        _, vectors = cast(Any, eigsh)(
            numerator, 1, denominator, which="LA", Minv=inverse, v0=start, ncv=min(size, 12), tol=_TOLERANCE
        )
    u = torch.from_numpy(vectors).to(like)
    up, down = above.apply(u), shifted(u)
    value = (u * up).sum() / (u * down).sum()
    residual = up - value * down
    error = ((residual * solve(residual).to(residual)).sum().clamp(min=0) / (u * down).sum()).sqrt()
    route = f"{stand_in(below)}scipy eigsh, inverse by conjugate gradients, ridge {ridge:g}·λ_max(H_A)"
    return Estimate(value, f"{route}, error: of the residual", error)
