"""Spectral density of each domain's Hessian: row 7 of what is looked at, beside the top eigenvalues."""

from math import log

import torch
from torch import Tensor

from fishr.diagnostics.eigenpairs import largest_eigenpairs
from fishr.diagnostics.hessian import Estimate, Hessian
from fishr.diagnostics.inspection import Inspection, of_head
from fishr.diagnostics.operators import Estimation, curvlinops_operator, quiet, repeated
from fishr.diagnostics.quantity import Quantity
from fishr.diagnostics.range_space import whole_if_small

_MARGIN = 0.05
_KAPPA = 3.0


@of_head
def spectral_density(seen: Inspection, *, points: int = 256) -> Quantity:
    """p(λ) = (1/P) Σ_i N(λ; λ_i, σ²) with σ a small part of the spectrum's width: zeros included.

    Small matrices from all their eigenvalues, others by stochastic Lanczos quadrature of curvlinops.

    Args:
        seen: the head and its data.
        points: of the grid, which spans each domain's spectrum and a margin.

    Returns:
        [K, 2, points]: λ, loss/parameter², and the density at it, parameter²/loss.

    Example:
        >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
        >>> spectral_density(head, *data).value.shape
        torch.Size([2, 2, 256])

    Source:
        Papyan 2020 (JMLR 21, 20-933), algorithm 2.
    """
    found = [density_of(hessian, seen.estimation, points) for hessian in seen.hessians]
    value = torch.stack([each.value for each in found])
    errors = [each.error for each in found if each.error is not None]
    route = "; ".join(dict.fromkeys(each.route for each in found))
    axes = ("domain", "eigenvalue and density", "point")
    error = torch.stack(errors) if errors else None
    return Quantity("spectral_density", value, axes, "loss/parameter² and parameter²/loss", route, error)


def density_of(hessian: Hessian, estimation: Estimation, points: int) -> Estimate:
    """[2, points], grid and density of one Hessian.

    Example:
        >>> from fishr.diagnostics.dense_hessian import DenseHessian
        >>> grid, density = density_of(DenseHessian(torch.diag(torch.arange(4.0))), Estimation(), 512).value
        >>> round(float(torch.trapezoid(density, grid)), 2)
        1.0
    """
    lanczos = 2 * estimation.products
    if (matrix := whole_if_small(hessian)) is not None:
        values = torch.linalg.eigvalsh(matrix)
        return Estimate(_smoothed(values, points, lanczos), "all eigenvalues, smoothed")
    with quiet():
        from curvlinops import lanczos_approximate_spectrum

    # Not the library's own bounds: those start from numpy's global generator.
    negated = largest_eigenpairs(lambda vectors: -hessian.apply(vectors), hessian.size, hessian.like, 1, "", 1e-2)
    bounds = (-float(negated.values[0]), float(hessian.top(1).values[0]))
    operator = curvlinops_operator(hessian)

    def estimate() -> Tensor:
        return torch.stack(lanczos_approximate_spectrum(operator, lanczos, points, 1, _KAPPA, bounds, _MARGIN))

    return repeated(estimate, hessian.like, estimation, f"curvlinops lanczos_approximate_spectrum, {lanczos} products")


def _smoothed(values: Tensor, points: int, lanczos: int) -> Tensor:
    """As ``lanczos_approximate_spectrum`` smooths: the width of the Gaussians follows from the spectrum's width."""
    low, high = values[0], values[-1]
    # A spectrum of a single value still needs a width.
    padding = torch.maximum(_MARGIN * (high - low), _MARGIN * values.abs().max() + torch.finfo(values.dtype).tiny)
    steps = torch.linspace(0, 1, points, dtype=values.dtype, device=values.device)
    grid = low - padding + (high - low + 2 * padding) * steps
    sigma = (high - low + 2 * padding) / (lanczos - 1) / (8 * log(_KAPPA)) ** 0.5
    bumps = torch.distributions.Normal(values.unsqueeze(1), sigma).log_prob(grid).exp()
    return torch.stack([grid, bumps.mean(0)])
