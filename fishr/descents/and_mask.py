"""ANDMask: only entries of the gradient on whose sign the domains agree."""

from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.descents.descent import Gradients, NamedOptimizer, Weights
from fishr.descents.each_domain import Joined, OneUpdate, at_most_one, of_each_domain


@frozen
class ANDMask(OneUpdate):
    """Update by m · ḡ / mean(m), with m = 1 where |mean_e sign g_e| ≥ τ, else 0, and ḡ = mean_e g_e.

    g_e is the gradient of the objective on domain e alone, loss/parameter. Means over e are over the domains in the
    batch; mean(m), plus 1e-10, is over the entries of one parameter. Domains are measured in their order, from batch
    statistics of each alone.

    Args:
        tau: τ, the least agreement from 0 to 1; at 1, all domains have the same sign.

    Raises:
        InputError: ``tau`` is outside its range.

    Example:
        >>> import torch
        >>> ANDMask.masked(torch.tensor([[1.0, 2.0], [3.0, -1.0]]), tau=1.0)
        tensor([4., 0.])

    Source: Parascandolo et al., Learning explanations that are hard to vary, ICLR 2021 (arXiv 2009.00329); DomainBed
        divides by the mean of the mask.
    """

    tau: float = field(default=1.0, validator=[number(), at_most_one])

    def joined(self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights) -> Joined:
        """Return the masked means, by name, and what was measured."""
        found, measured = of_each_domain(gradients, weights)
        masked = {name: None if given is None else self.masked(given, self.tau) for name, given in found.items()}
        return masked, measured

    @staticmethod
    def masked(gradients: Tensor, tau: float) -> Tensor:
        """Return the masked mean of the domains' gradients [K, ...] by one parameter."""
        mask = (gradients.sign().mean(0).abs() >= tau).to(gradients.dtype)
        return mask * gradients.mean(0) / (1e-10 + mask.mean())
