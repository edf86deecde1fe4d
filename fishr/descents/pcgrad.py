"""PCGrad: gradients of domains without the parts that conflict."""

import torch
from attrs import frozen
from torch import Tensor

from fishr.descents.descent import Gradients, NamedOptimizer, Weights
from fishr.descents.each_domain import Joined, OneUpdate, inner_products, of_each_domain


@frozen
class PCGrad(OneUpdate):
    """Update by the mean of the domains' gradients, each projected away from those that it conflicts with.

    For each other domain j in random order, p_i ← p_i − (p_i·g_j / ‖g_j‖²) g_j where p_i·g_j < 0, from p_i = g_i on.
    g_i is the gradient of the objective on domain i alone, by all trained parameters. The paper sums the p_i; the mean
    has the size of the mean of the gradients.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits("erm"), descent=PCGrad()).descent
        PCGrad()

    Source: Yu et al., Gradient surgery for multi-task learning, NeurIPS 2020 (arXiv 2001.06782), algorithm 1.
    """

    def joined(self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights) -> Joined:
        """Return the means of the projections, by name, and what was measured."""
        found, measured = of_each_domain(gradients, weights)
        shares = projected(inner_products(found), gradients.generator("PCGrad")).mean(0)
        total = {
            name: None if given is None else torch.tensordot(shares.to(given), given, 1)
            for name, given in found.items()
        }
        return total, measured


def projected(products: Tensor, generator: torch.Generator) -> Tensor:
    """Return the projections as rows of coefficients of the gradients, from these gradients' inner products."""
    rows = torch.eye(len(products), dtype=products.dtype)
    for i, row in enumerate(rows):
        for j in torch.randperm(len(products), generator=generator).tolist():
            conflict = row @ products[j]
            if j != i and conflict < 0:
                row[j] -= conflict / products[j, j]
    return rows
