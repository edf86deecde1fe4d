"""ERM: the empirical risk, a mean of losses."""

from typing import ClassVar, Literal

from attrs import field, frozen
from torch import Tensor

from fishr.checks import one_of
from fishr.observation import Observation
from fishr.penalties.penalty import Memoryless


@frozen
class ERM(Memoryless):
    """Mean loss over domains, (1/K) Σ_e R_e, or over samples, (1/N) Σ_n ℓ_n; equal for domains of equal size.

    K counts the domains present in the batch.

    Args:
        over: ``"domains"`` (the IRM Colored MNIST script) or ``"samples"`` (pooled, DomainBed).

    Raises:
        InputError: another mean.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.zeros(3, 2), torch.tensor([0, 0, 1]), sizes=(1, 2))
        >>> value, _ = ERM()(observe(torch.nn.Identity(), torch.nn.Linear(2, 2), batch), (), step=0)
        >>> value.shape
        torch.Size([])
    """

    takes_weights: ClassVar[bool] = True
    over: Literal["domains", "samples"] = field(default="domains", validator=one_of("domains", "samples"))

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the risk, 0-dim, in the loss's unit."""
        return (seen.domain_losses if self.over == "domains" else seen.losses).mean(), state
