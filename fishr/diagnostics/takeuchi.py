"""Takeuchi information criterion tr(H⁻¹C): row 9 of what is looked at."""

from collections.abc import Callable

import torch
from torch import Tensor

from fishr.diagnostics.covariance import domain_gradients, whole_covariance
from fishr.diagnostics.hessian import Estimate, Hessian, together
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.operators import Estimation, curvlinops_operator, quiet, seeded
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.range_space import compact, range_space, stand_in, whole_if_small
from fishr.diagnostics.sampling import averaged, jackknife
from fishr.losses import per_sample_losses
from fishr.statistics.pure_forward import pure_forward

_TOLERANCE, _ITERATIONS = 1e-4, 1000


@of_head
def takeuchi(seen: Inspection, *, ridge: float = 1e-3) -> Quantity:
    """tr((H_e + r)⁻¹ C_e) on the range of H_e, with r = ridge·λ_max(H_e).

    Small heads by the eigenvalues of H. Otherwise an estimate: (H + r)x̂ = x by conjugate gradients for random
    combinations x of the centred gradients with E xxᵀ = C; for heads that are not linear with the Gauss-Newton matrix
    in the place of H.

    Args:
        seen: the head and its data.
        ridge: as a share of the largest eigenvalue.

    Returns:
        [K], 1 (each of H and C in loss and parameter units, with C = H for a model that is right).

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> takeuchi(head, *data).value.shape
        torch.Size([2])

    Source:
        Thomas et al. 2020 (arXiv 1906.07774).
    """
    found = together([_of_domain(seen, domain, ridge) for domain in range(seen.domains)])
    return Quantity("takeuchi", found.value, ("domain",), "1", found.route, found.error)


@of_head
def takeuchi_diagonal(seen: Inspection, *, ridge: float = 1e-3) -> Quantity:
    """Σ_i v_e,i/(h_e,i + r) of the diagonals, with r = ridge·max h_e: what ``takeuchi`` is if both are diagonal.

    Args:
        seen: the head and its data.
        ridge: as a share of the largest entry; entries of h_e below zero count as zero.

    Returns:
        [K], 1.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> takeuchi_diagonal(head, *data).value.shape
        torch.Size([2])
    """

    def trace(diagonals: Tensor) -> Tensor:
        curved = diagonals.clamp(min=0)
        ratios = seen.moments.variance / (curved + ridge * curved.amax(1, keepdim=True))
        # Where nothing is curved and nothing varies the ratio is 0/0 and adds nothing.
        return ratios.nan_to_num(nan=0.0, posinf=torch.inf).sum(1)

    value, error = jackknife(trace, seen.hessian_diagonals, smooth=False)
    route = f"diagonals, {seen.hessian_diagonals.route}, ridge {ridge:g} of the largest entry"
    return Quantity("takeuchi_diagonal", value, ("domain",), "1", route, error)


def _of_domain(seen: Inspection, domain: int, ridge: float) -> Estimate:
    hessian = compact(seen.hessians[domain])
    matrix = whole_if_small(hessian)
    if matrix is not None:
        space = range_space(matrix, ridge)
        whitened = whole_covariance(_gradients(seen, domain, hessian)) @ space.whitener
        value = (space.whitener * whitened).sum()
        return Estimate(value, f"eigh on the range of H, {_ridge(ridge)}, the null space projected out")
    # A Gauss-Newton matrix that stands for a Hessian has eigenvalues of its own.
    largest = (seen.tops(1)[domain] if isinstance(hessian, LinearHessian) else hessian.top(1)).values[0]
    estimation, combine = seen.estimation, _combination(seen, domain, hessian)
    return takeuchi_by_solving(hessian, combine, seen.sizes[domain], float(ridge * largest), ridge, estimation)


def takeuchi_by_solving(
    hessian: Hessian,
    combine: Callable[[Tensor], Tensor],
    samples: int,
    shift: float,
    ridge: float,
    estimation: Estimation,
) -> Estimate:
    """tr((H + shift)⁻¹ C) = E xᵀ(H + shift)⁻¹x by conjugate gradients, x = Σ_n w_n (g_n − ḡ)/√n with signs w.

    Args:
        hessian: without negative eigenvalues.
        combine: [n, M] weights to the sums of gradients that they weigh, [P, M].
        samples: n.
        shift: added to H, loss/parameter².
        ridge: the shift as a share of λ_max, for the route.
        estimation: ``products`` signs are drawn, each of which takes a solution.

    Returns:
        The mean over signs; its error is the standard error and a bound of what the solver left.

    Example:
        >>> from fishr.diagnostics.dense_hessian import DenseHessian
        >>> gradients = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> hessian = DenseHessian(torch.eye(2))
        >>> found = takeuchi_by_solving(hessian, lambda w: gradients.T @ w, 2, 1.0, 1.0, Estimation())
        >>> bool((found.value - 0.5).abs() <= 3 * found.error)
        True
    """
    like, count = hessian.like, estimation.products
    with quiet(), seeded(like, estimation.seed):
        from curvlinops import CGInverseLinearOperator
        from curvlinops.examples import IdentityLinearOperator

        weights = torch.randint(2, (samples, count), device=like.device).to(like.dtype) * 2 - 1
        right = combine(weights - weights.mean(0)) / samples**0.5
        identity = IdentityLinearOperator([(hessian.size,)], like.device, like.dtype)
        shifted = curvlinops_operator(hessian) + shift * identity
        # Its safeguard against division by zero, 1e-10 by default, would end the iteration for weakly curved risks.
        inverse = CGInverseLinearOperator(shifted, tolerance=_TOLERANCE, max_iter=_ITERATIONS, eps=1e-30)
        solved = inverse @ right
    remainder = right - shifted @ solved
    values = (right * solved).sum(0)
    # xᵀH⁻¹x − xᵀx̂ = x̂ᵀr + rᵀH⁻¹r for the remainder r, and H is at least the shift.
    left = ((solved * remainder).sum(0).abs() + remainder.square().sum(0) / shift).mean()
    route = f"{stand_in(hessian)}conjugate gradients for {count} random signs, seed {estimation.seed}, {_ridge(ridge)}"
    mean = averaged(values, route)
    assert mean.error is not None
    return Estimate(mean.value, f"{mean.route} and the solver's", mean.error + left)


def _ridge(ridge: float) -> str:
    return f"ridge {ridge:g}·λ_max"


def _gradients(seen: Inspection, domain: int, hessian: Hessian) -> Tensor:
    """[n, P] in the coordinates of the compact Hessian."""
    if not isinstance(hessian, LinearHessian):
        return domain_gradients(seen, domain)
    deltas = seen.deltas.split(list(seen.sizes))[domain]
    return (deltas.unsqueeze(2) * hessian.features.unsqueeze(1)).flatten(1)


def _combination(seen: Inspection, domain: int, hessian: Hessian) -> Callable[[Tensor], Tensor]:
    if isinstance(hessian, LinearHessian):
        deltas = seen.deltas.split(list(seen.sizes))[domain]

        def outer(weights: Tensor) -> Tensor:
            columns = [(deltas * w.unsqueeze(1)).T @ hessian.features for w in weights.unbind(1)]
            return torch.stack([column.flatten() for column in columns], 1)

        return outer

    def backward(weights: Tensor) -> Tensor:
        parameters = [p for p in seen.head.parameters() if p.requires_grad]
        with torch.enable_grad():
            logits = pure_forward(seen.head, seen.domain_features[domain], {})
            losses = per_sample_losses(seen.loss, logits, seen.domain_labels[domain])
            columns = [torch.autograd.grad(losses @ w, parameters, retain_graph=True) for w in weights.unbind(1)]
        return torch.stack([torch.cat([part.flatten() for part in column]) for column in columns], 1)

    return backward
