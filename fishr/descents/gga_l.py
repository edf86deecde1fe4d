"""GGA-L: noise on the gradient where the domains disagree, as in Langevin dynamics."""

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.descents.descent import Gradients, NamedOptimizer, Weights
from fishr.descents.each_domain import Joined, OneUpdate, inner_products, of_each_domain


@frozen
class GGAL(OneUpdate):
    """Update by ḡ + γ (1 − c) n, with ḡ the mean of the domains' gradients, c their mean cosine and n normal noise.

    c is the mean over pairs of domains of g_i·g_j / (‖g_i‖ ‖g_j‖), by all trained parameters together; of a single
    domain, 1. Each entry of n is drawn from N(0, 1).

    Args:
        gamma: γ, the standard deviation of the noise where gradients are orthogonal, loss/parameter.

    Raises:
        InputError: ``gamma`` is negative.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits("erm"), descent=GGAL(gamma=0.01)).descent
        GGAL(gamma=0.01)

    Source: Ballas and Diou, Gradient-guided annealing for domain generalization, CVPR 2025 (arXiv 2502.20162).
    """

    gamma: float = field(default=0.001, validator=number())

    def joined(self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights) -> Joined:
        """Return the means with noise, by name, and what was measured."""
        found, measured = of_each_domain(gradients, weights)
        spread = self.gamma * (1 - _mean_cosine(inner_products(found)))
        generator, total = gradients.generator("GGAL"), dict[str, Tensor | None]()
        for name, given in found.items():
            noise = torch.randn(weights[name].shape, generator=generator)
            total[name] = None if given is None else given.mean(0) + spread * noise.to(given)
        return total, measured


def _mean_cosine(products: Tensor) -> float:
    norms = products.diagonal().sqrt()
    cosines = products / (norms.outer(norms) + 1e-30)
    above = cosines.triu(1).sum().item()
    pairs = len(products) * (len(products) - 1) // 2
    return above / pairs if pairs else 1.0
