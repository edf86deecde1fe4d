"""Distances between the domains of a [K, P] statistic."""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "sum"]


def distance_to_mean(statistic: Tensor, parameters: Reduction = "mean", domains: Reduction = "mean") -> Tensor:
    """How far the domains are from their mean: (1/K) Σ_e ‖v_e − v̄‖², the Fishr penalty when v is the variance.

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
    """The factor that turns a sum of squares over [K, P] into the named reduction.

    Example:
        >>> distance_scale(2, 10, "mean", "sum")
        0.1
    """
    return (1 / size if over_parameters == "mean" else 1.0) * (1 / domains if over_domains == "mean" else 1.0)


def pairwise_distances(statistic: Tensor) -> Tensor:
    """‖v_A − v_B‖² for every pair of domains.

    Args:
        statistic: [K, P].

    Returns:
        [K, K], symmetric, zero diagonal, the statistic's unit squared.

    Example:
        >>> pairwise_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
        tensor([[ 0., 25.],
                [25.,  0.]])
    """
    # Row by row from differences: the shorter ‖A‖² + ‖B‖² − 2A·B loses all digits when the domains agree.
    return torch.stack([(statistic - row).square().sum(1) for row in statistic])


def scale_free_distance(statistic: Tensor) -> Tensor:
    """(1/K) Σ_e ‖v_e − v̄‖² / ‖v̄‖²: comparable between models, training times and loss scales.

    Args:
        statistic: [K, P].

    Returns:
        0-dim, without unit; nan if the mean over domains is exactly zero.

    Example:
        >>> scale_free_distance(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        tensor(0.2500)
    """
    return distance_to_mean(statistic, parameters="sum") / statistic.mean(0).square().sum()
