"""SANDMask: entries of the gradient in proportion to how well the domains agree on them."""

from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.descents.descent import Gradients, NamedOptimizer, Weights
from fishr.descents.each_domain import Joined, OneUpdate, at_most_one, of_each_domain


@frozen
class SANDMask(OneUpdate):
    """Update by m · ḡ / mean(m), with m = max(0, tanh(k (|mean_e sign g_e| − τ) / Var_e g_e)) and ḡ = mean_e g_e.

    g_e is the gradient of the objective on domain e alone, loss/parameter. Means over e are over the domains in the
    batch, the variance is divided by their number minus one; mean(m), plus 1e-10, is over the entries of one parameter.
    With τ = 1, m is 0 wherever it is defined, so that nothing is trained. A single domain has no variance; it is taken
    as 1e-17, and m as 1e-17 where it is 0/0, as DomainBed does.

    Args:
        tau: τ, at most 1: the agreement of signs from which entries are used.
        k: Steepness, (loss/parameter)².

    Raises:
        InputError: A number outside its range.

    Example:
        >>> import torch
        >>> SANDMask(tau=0.5, k=1.0).masked(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        tensor([4., 0.])

    Source: Shahtalebi et al., SAND-mask, 2021 (arXiv 2106.02266); DomainBed divides by the mean of the mask.
    """

    tau: float = field(default=1.0, validator=[number(), at_most_one])
    k: float = field(default=10.0, validator=number(above=True))

    def joined(self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights) -> Joined:
        """Return the masked means, by name, and what was measured."""
        found, measured = of_each_domain(gradients, weights)
        masked = {name: None if given is None else self.masked(given) for name, given in found.items()}
        return masked, measured

    def masked(self, gradients: Tensor) -> Tensor:
        """Return the masked mean of the domains' gradients [K, ...] by one parameter."""
        variance = gradients.var(0) if len(gradients) > 1 else gradients.new_full(gradients.shape[1:], 1e-17)
        agreement = gradients.sign().mean(0).abs()
        mask = (self.k * variance.pow(-1) * (agreement - self.tau)).tanh().clamp(min=0.0).nan_to_num(nan=1e-17)
        return mask * gradients.mean(0) / (1e-10 + mask.mean())
