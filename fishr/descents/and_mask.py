"""ANDMask: only entries of the gradient on whose sign the domains agree."""

from typing import ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.descents.descent import Descended, Gradients, NamedOptimizer, Weights
from fishr.errors import InputError


def _tau(record: object, attribute: object, value: float) -> None:
    if not value <= 1:
        raise InputError(f"tau: got {value}, expected at most 1, where all domains agree")


@frozen
class ANDMask:
    """Update by m · ḡ / mean(m), with m = 1 where |mean_e sign g_e| ≥ τ, else 0, and ḡ = mean_e g_e.

    g_e is the gradient of the objective on domain e alone, loss/parameter. Means over e are over the domains in the
    batch; mean(m), plus 1e-10, is over the entries of one parameter. Domains are measured in their order, from batch
    statistics of each alone.

    Args:
        tau: τ, the least agreement from 0 to 1; at 1, all domains have the same sign.

    Raises:
        InputError: ``tau`` is outside its range.

    Example:
        >>> ANDMask.masked([torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])], tau=1.0)
        tensor([4., 0.])

    Source: Parascandolo et al., Learning explanations that are hard to vary, ICLR 2021 (arXiv 2009.00329); DomainBed
        divides by the mean of the mask.
    """

    tau: float = field(default=1.0, validator=[number(), _tau])
    by_domain: ClassVar[bool] = True

    def init(self, weights: Weights) -> tuple[()]:
        """Return no state."""
        return ()

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: tuple[()]
    ) -> Descended:
        """Return the outcome of one gradient of each domain and one update."""
        measured, found = None, list[dict[str, Tensor | None]]()
        for domain in gradients.domains:
            measured = gradients(weights, (domain,), measured)
            found.append(measured.gradients)
        assert measured is not None
        by_name = {name: [g for each in found if (g := each[name]) is not None] for name in weights}
        masked = {name: self.masked(given, self.tau) if given else None for name, given in by_name.items()}
        moved, memory = optimizer.update(masked, memory, weights)
        return Descended(moved, memory, state, measured)

    @staticmethod
    def masked(gradients: list[Tensor], tau: float) -> Tensor:
        """Return the masked mean of the domains' gradients by one parameter."""
        stacked = torch.stack(gradients)
        mask = (stacked.sign().mean(0).abs() >= tau).to(stacked.dtype)
        return mask * stacked.mean(0) / (1e-10 + mask.mean())
