"""CORAL: match means and covariances of the features across domains."""

from typing import ClassVar

import torch
from attrs import frozen
from torch import Tensor

from fishr.methods.method import Method, require_samples
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Memoryless, require_present
from fishr.statistics.distances import covariance_products, distance_to_mean_of_products
from fishr.training.objective import Objective


@frozen
class CORAL(Memoryless):
    """2/(K(K−1)) Σ_{i<j} [mean (μ_i − μ_j)² + mean (C_i − C_j)²] over the F entries of μ and the F² of C.

    μ_e is the mean of the features of domain e and C_e their covariance, divided by n − 1. Sums and K are over the
    domains present in the batch.

    Raises:
        InputError: when called, fewer than 2 domains, or a domain with fewer than 2 samples.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [2.0], [3.0], [3.0]]), torch.tensor([0, 0, 0, 0]), sizes=(2, 2))
        >>> CORAL()(observe(torch.nn.Identity(), torch.nn.Linear(1, 2), batch), (), 0)[0]  # (1 − 3)² + (2 − 0)²
        tensor(8.)

    Source:
        Sun and Saenko 2016 (arXiv 1607.01719); with means, and averaged over pairs, in DomainBed.
    """

    least_domains: ClassVar[int] = 2

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in features squared plus features to the fourth."""
        require_present(seen, "CORAL", self.least_domains)
        require_samples(seen, "CORAL", 2)
        return mean_and_covariance_gap(seen.per_domain(seen.features.flatten(1))), state


def mean_and_covariance_gap(groups: tuple[Tensor, ...]) -> Tensor:
    """Return CORAL's distance of K groups of features [n, F]."""
    means = torch.stack([group.mean(0) for group in groups])
    sizes, (count, features) = tuple(map(len, groups)), means.shape
    # Their second moments are the covariances.
    rows = [(group - mean) / (len(group) - 1) ** 0.5 for group, mean in zip(groups, means, strict=True)]
    if sum(sizes) < features:
        # Of few samples the inner products cost less than the F² entries.
        whole = torch.cat([part * len(part) ** 0.5 for part in rows])
        products = covariance_products(whole @ whole.T, sizes, centered=False)
        spread = distance_to_mean_of_products(products) * count / (count - 1) / features**2
    else:
        spread = torch.stack([part.T @ part for part in rows]).var(0).mean()
    # The mean over pairs of squared differences is twice the unbiased variance.
    return 2 * (means.var(0).mean() + spread)


METHODS = {
    "CORAL": Method(
        {"mmd_gamma": Range(1.0, power(-1, 1))},
        lambda h: Objective(penalty=Total(coral=Scaled(CORAL(), h["mmd_gamma"]))),
        passes="domain",
    )
}
