"""Hutchinson: match the domains' gradients and the diagonals of their Hessians."""

from typing import ClassVar

from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.methods.head_hessian import diagonals, require_linear
from fishr.methods.method import Method
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.combinators import Total
from fishr.penalties.penalty import Memoryless
from fishr.statistics.distances import distance_to_mean
from fishr.training.objective import Objective


@frozen
class Hutchinson(Memoryless):
    """(1/K) Σ_e [α ‖diag H_e − diag H̄‖² + β ‖g_e − ḡ‖²], of gradient and Hessian of R_e by a linear head.

    The diagonal is exact, (1/n) Σ_n diag(A_n) ⊗ z̃_n² with A_n = diag(p) − ppᵀ for softmax, in place of an estimate by
    300 random probes, each with two backward passes. Sums and K are over the domains present in the batch.

    Args:
        alpha: α, weight of the diagonals, parameter⁴/loss.
        beta: β, weight of the gradients, parameter²/loss.

    Raises:
        InputError: a weight below 0; when called, fewer than 2 domains, or a head that is not one linear layer.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> Hutchinson()(observe(torch.nn.Identity(), torch.nn.Linear(3, 2), batch), (), 0)[0].item() < 1e-12
        True

    Source:
        Hemati et al. 2023 (arXiv 2308.11778).
    """

    alpha: float = field(default=1e-3, validator=number())
    beta: float = field(default=5e-3, validator=number())
    least_domains: ClassVar[int] = 2
    per_head: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in the loss's unit."""
        require_linear(seen, "Hutchinson", self.least_domains)
        # Constant means would not change the gradient, because the differences to the mean add up to 0.
        of_diagonals = distance_to_mean(diagonals(seen), "sum")
        of_gradients = distance_to_mean(seen.moments.mean, "sum")
        return self.alpha * of_diagonals + self.beta * of_gradients, state


METHODS = {
    "Hutchinson": Method(
        {"hutchinson_alpha": Range(1e-3, power(1, 4)), "hutchinson_beta": Range(5e-3, power(2, 6))},
        lambda h: Objective(penalty=Total(hutchinson=Hutchinson(h["hutchinson_alpha"], h["hutchinson_beta"]))),
    )
}
