"""Distances between full gradient covariances, through Gram matrices of the per-sample gradients.

With K̃ the Gram matrix of the gradients centered in their domains, ⟨C_A, C_B⟩ = ‖K̃_AB‖²/(n_A n_B): everything about
covariances of size P×P follows from one N×N matrix.
"""

import torch
from torch import Tensor

from fishr.types import check_sizes


def linear_gram(deltas: Tensor, features: Tensor, bias: bool = True) -> Tensor:
    """Gram matrix of a linear head's per-sample gradients: (δ_n·δ_m)(z_n·z_m + 1).

    Args:
        deltas: [N, C], δ = ∂ℓ/∂logits.
        features: [N, F].
        bias: the head has a bias; without one there is no + 1.

    Returns:
        [N, N], (loss/parameter)².

    Example:
        >>> linear_gram(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [1.0]]))
        tensor([[10.,  8.],
                [ 8.,  8.]])
    """
    return (deltas @ deltas.T) * (features @ features.T + float(bias))


def covariance_products(gram: Tensor, sizes: tuple[int, ...], centered: bool = True) -> Tensor:
    """⟨C_A, C_B⟩, the inner products of the domains' gradient covariances.

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
    """(1/K) Σ_e ‖C_e − C̄‖² from the inner products of the C_e: mean of the diagonal less mean of all.

    Args:
        products: [K, K], ⟨C_A, C_B⟩.

    Returns:
        0-dim, the products' unit. A difference of like numbers: in float32 it is exact to about 1e-7·‖C‖².

    Example:
        >>> distance_to_mean_of_products(torch.tensor([[1.0, 4.0], [4.0, 16.0]]))  # of 1 and 4
        tensor(2.2500)
    """
    return products.diagonal().mean() - products.mean()


def pairwise_distances_of_products(products: Tensor) -> Tensor:
    """‖C_A − C_B‖² for every pair of domains, from their inner products.

    Args:
        products: [K, K], ⟨C_A, C_B⟩.

    Returns:
        [K, K], the products' unit.

    Example:
        >>> pairwise_distances_of_products(torch.tensor([[1.0, 4.0], [4.0, 16.0]]))
        tensor([[0., 9.],
                [9., 0.]])
    """
    squares = products.diagonal()
    return squares[:, None] + squares[None, :] - 2 * products
