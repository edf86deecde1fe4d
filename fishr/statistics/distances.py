"""Distances between the domains' statistics: vectors [K, P], or covariance matrices through their Gram matrix.

With K̃ the Gram matrix of the gradients centered in their domains, ⟨C_A, C_B⟩ = ‖K̃_AB‖²/(n_A n_B): one N×N matrix
determines every distance between covariances of size P×P.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from fishr.row_checks import check_sizes

Reduction = Literal["mean", "sum"]


def distance_to_mean(statistic: Tensor, parameters: Reduction = "mean", domains: Reduction = "mean") -> Tensor:
    """Return the mean squared distance to the mean, (1/K) Σ_e ‖v_e − v̄‖²: the Fishr penalty if v is the variance.

    Args:
        statistic: [K, P].
        parameters: ``"mean"`` divides by P (DomainBed), ``"sum"`` does not (the IRM Colored MNIST script).
        domains: ``"mean"`` divides by K, ``"sum"`` does not.

    Returns:
        0-dim, the statistic's unit squared; 0 for a single domain.

    Example:
        >>> distance_to_mean(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        tensor(0.5000)
        >>> distance_to_mean(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), parameters="sum")
        tensor(1.)

    Source:
        Ramé et al. 2022 (arXiv 2109.02934), equation 4.
    """
    scale = distance_scale(statistic.shape[0], statistic.shape[1], parameters, domains)
    return (statistic - statistic.mean(0)).square().sum() * scale


def distance_scale(domains: int, size: int, over_parameters: Reduction, over_domains: Reduction) -> float:
    """Return the factor that turns a sum of squares over [K, P] into the named reduction."""
    return (1 / size if over_parameters == "mean" else 1.0) * (1 / domains if over_domains == "mean" else 1.0)


def pairwise_distances(statistic: Tensor) -> Tensor:
    """Return ‖v_A − v_B‖² [K, K] for every pair of domains, of a statistic [K, P], in its unit squared.

    Example:
        >>> pairwise_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[ 0., 25.],
                [25.,  0.]])
    """
    # From differences, row by row: ‖A‖² + ‖B‖² − 2A·B loses all digits when the domains agree.
    return torch.stack([(statistic - row).square().sum(1) for row in statistic])


def scale_free_distance(statistic: Tensor) -> Tensor:
    """Return (1/K) Σ_e ‖v_e − v̄‖² / ‖v̄‖², comparable between models, training times and loss scales.

    The result is 0-dim and without unit, NaN if the mean over domains of the statistic [K, P] is exactly zero.

    Example:
        >>> scale_free_distance(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        tensor(0.2500)
    """
    return distance_to_mean(statistic, parameters="sum") / statistic.mean(0).square().sum()


def divisor(square: Tensor) -> Tensor:
    """Return a squared norm to divide by; infinite where it is below rounding, so that the quotient is 0."""
    # Derivatives of the loss at rounding, ε of the type, give variances of ε².
    return torch.where(square > torch.finfo(square.dtype).eps ** 4, square, math.inf)


def covariance_products(gram: Tensor, sizes: tuple[int, ...], centered: bool = True) -> Tensor:
    """Return ⟨C_A, C_B⟩, the inner products of the domains' gradient covariances.

    Args:
        gram: [N, N] Gram matrix of the per-sample gradients.
        sizes: samples of each domain.
        centered: covariances; otherwise second-moment matrices (empirical Fisher).

    Returns:
        [K, K], (loss/parameter)⁴; the diagonal holds ‖C_A‖².

    Raises:
        InputError: the sizes do not fit the rows.

    Example:
        >>> gradients = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]])
        >>> covariance_products(gradients @ gradients.T, (2, 2))  # variances 1 and 4
        tensor([[ 1.,  4.],
                [ 4., 16.]])
    """
    sizes = check_sizes(sizes, len(gram))
    blocks = [row.split(list(sizes), 1) for row in gram.split(list(sizes), 0)]

    def product(block: Tensor) -> Tensor:
        if centered:
            block = block - block.mean(0, keepdim=True)
            block = block - block.mean(1, keepdim=True)
        return block.square().mean()

    return torch.stack([torch.stack([product(block) for block in row]) for row in blocks])


def distance_to_mean_of_products(products: Tensor) -> Tensor:
    """Return (1/K) Σ_e ‖C_e − C̄‖² from the inner products of the C_e: mean of the diagonal minus mean of all.

    Cancellation leaves an error of about 1e-7·‖C‖² in float32.

    Example:
        >>> distance_to_mean_of_products(torch.tensor([[1.0, 4.0], [4.0, 16.0]]))  # of 1 and 4
        tensor(2.2500)
    """
    return products.diagonal().mean() - products.mean()


def pairwise_distances_of_products(products: Tensor) -> Tensor:
    """Return ‖C_A − C_B‖² [K, K] for every pair of domains, from their inner products [K, K].

    Example:
        >>> pairwise_distances_of_products(torch.tensor([[1.0, 4.0], [4.0, 16.0]]))
        tensor([[0., 9.],
                [9., 0.]])
    """
    squares = products.diagonal()
    return squares[:, None] + squares[None, :] - 2 * products
