"""HGP: match the domains' gradients and the products of their Hessians with them."""

from typing import ClassVar

from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.methods.head_hessian import products, require_linear
from fishr.methods.method import Method
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.combinators import Total
from fishr.penalties.penalty import Memoryless
from fishr.training.objective import Objective


@frozen
class HGP(Memoryless):
    """(1/K) Σ_e [α ‖H_e g_e − sg(H̄ ḡ)‖² + β ‖g_e − sg(ḡ)‖²], of gradient and Hessian of R_e by a linear head.

    H̄ and ḡ are the means over domains, sg makes them constants. Products have a closed form, without a second backward
    pass. Sums and K are over the domains present in the batch.

    Args:
        alpha: α, weight of the Hessian-gradient products, parameter⁶/loss³.
        beta: β, weight of the gradients, parameter²/loss.

    Raises:
        InputError: a weight below 0; when called, fewer than 2 domains, or a head that is not one linear layer.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> HGP()(observe(torch.nn.Identity(), torch.nn.Linear(3, 2), batch), (), 0)[0].item() < 1e-12
        True

    Source:
        Hemati et al. 2023 (arXiv 2308.11778).
    """

    alpha: float = field(default=1e-4, validator=number())
    beta: float = field(default=5e-3, validator=number())
    least_domains: ClassVar[int] = 2
    per_head: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in the loss's unit."""
        require_linear(seen, "HGP", self.least_domains)
        gradients = seen.moments.mean
        center = gradients.mean(0, keepdim=True)
        of_products = products(seen, gradients) - products(seen, center).mean(0).detach()
        of_gradients = gradients - center.detach()
        terms = self.alpha * of_products.square().sum(1) + self.beta * of_gradients.square().sum(1)
        return terms.mean(), state


METHODS = {
    "HGP": Method(
        {"hgp_alpha": Range(1e-4, power(-5, -3)), "hgp_beta": Range(5e-3, power(-3, -1))},
        lambda h: Objective(penalty=Total(hgp=HGP(h["hgp_alpha"], h["hgp_beta"]))),
    )
}
