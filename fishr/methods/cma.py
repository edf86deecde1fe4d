"""CMA: match the domains' gradients and whole Hessians."""

from typing import ClassVar

from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.methods.head_hessian import inner_products, require_linear
from fishr.methods.method import Method
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.combinators import Total
from fishr.penalties.penalty import Memoryless
from fishr.statistics.distances import distance_to_mean, distance_to_mean_of_products
from fishr.training.objective import Objective


@frozen
class CMA(Memoryless):
    """(1/K) Σ_e [α ‖g_e − ḡ‖² + β ‖H_e − H̄‖²_F], of gradient and Hessian of R_e by a linear head.

    No Hessian is formed: inner products of two of them are sums over pairs of samples, [N, N]. Sums and K are over the
    domains present in the batch.

    Args:
        alpha: α, weight of the gradients, parameter²/loss.
        beta: β, weight of the Hessians, parameter⁴/loss.

    Raises:
        InputError: a weight below 0; when called, fewer than 2 domains, or a head that is not one linear layer.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> CMA()(observe(torch.nn.Identity(), torch.nn.Linear(3, 2), batch), (), 0)[0].item() < 1e-6
        True

    Source:
        Chen, Si, Zhang and Zhao, Moment alignment, UAI 2025 (arXiv 2506.07378); the authors' code leaves out the bias
        and divides g and H by the number of weights.
    """

    alpha: float = field(default=5e-3, validator=number())
    beta: float = field(default=1e-4, validator=number())
    least_domains: ClassVar[int] = 2
    per_head: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in the loss's unit."""
        require_linear(seen, "CMA", self.least_domains)
        of_hessians = distance_to_mean_of_products(inner_products(seen))
        return self.alpha * distance_to_mean(seen.moments.mean, "sum") + self.beta * of_hessians, state


METHODS = {
    "CMA": Method(
        {"cma_alpha": Range(5e-3, power(-3, -1)), "cma_beta": Range(1e-4, power(-5, -3))},
        lambda h: Objective(penalty=Total(cma=CMA(h["cma_alpha"], h["cma_beta"]))),
    )
}
