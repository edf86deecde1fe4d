"""V-REx: penalize the variance of the domains' risks."""

from typing import ClassVar, Literal

from attrs import field, frozen
from torch import Tensor

from fishr.checks import one_of
from fishr.observation import Observation
from fishr.penalties.penalty import Memoryless, require_present


@frozen
class VREx(Memoryless):
    """(1/K) Σ_e (R_e − R̄)², or the sum over pairs Σ_{A<B} (R_A − R_B)², which is K² times that.

    Sums, mean and K are over the domains present in the batch.

    Args:
        form: ``"variance"`` (DomainBed) or ``"pairwise"`` (the IRM Colored MNIST script: (R_1 − R_2)²).

    Raises:
        InputError: another form; when called, fewer than 2 domains.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 1.0]), sizes=(1, 1))
        >>> squared = lambda logits, labels: (logits.squeeze(1) - labels) ** 2
        >>> seen = observe(torch.nn.Identity(), torch.nn.Identity(), batch, loss=squared)  # risks 0 and 1
        >>> VREx()(seen, (), 0)[0], VREx("pairwise")(seen, (), 0)[0]
        (tensor(0.2500), tensor(1.))

    Source:
        Krueger et al. 2021 (arXiv 2003.00688), equation 8.
    """

    form: Literal["variance", "pairwise"] = field(default="variance", validator=one_of("variance", "pairwise"))
    least_domains: ClassVar[int] = 2
    takes_weights: ClassVar[bool] = True

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in the loss's unit squared."""
        require_present(seen, "VREx", self.least_domains)
        variance = (seen.domain_losses - seen.domain_losses.mean()).square().mean()
        return variance * (1 if self.form == "variance" else seen.domains**2), state
