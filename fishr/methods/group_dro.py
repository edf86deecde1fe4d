"""GroupDRO: a risk that weighs domains by how large their risks have been."""

from typing import Any, ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.methods.method import Method
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.training.objective import Objective
from fishr.types import Problem


@frozen
class GroupDRO:
    """Σ_e q_e R_e / Σ_e q_e, after q_e ← q_e · exp(η R_e); a risk.

    Sums are over the domains present in the batch. The state is log q, zeros at first. Only ratios of q count: those
    present are rescaled to the sum that they had, and the q of a missing domain stays as it is.

    Args:
        eta: η, the rate of the weights, 1/loss.

    Raises:
        InputError: η below 0.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 0.0]), sizes=(1, 1))
        >>> risks = lambda logits, labels: logits.squeeze(1)  # 0 and 2
        >>> risk, problem = GroupDRO(eta=1.0), Problem.of(torch.nn.Linear(1, 1), domains=2)
        >>> seen = observe(torch.nn.Identity(), torch.nn.Identity(), batch, loss=risks)
        >>> risk(seen, risk.init(problem), 0)[0]  # 2 e² / (1 + e²)
        tensor(1.7616)

    Source:
        Sagawa et al. 2020 (arXiv 1911.08731), algorithm 1.
    """

    eta: float = field(default=1e-2, validator=number())
    per_head: ClassVar[tuple[str, ...]] = ("eta",)
    compares_domains: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    def init(self, problem: Problem) -> Tensor:
        """Return log q = 0 of all domains, [K]."""
        return torch.zeros(problem.domains, dtype=problem.dtype, device=problem.device)

    def __call__(self, seen: Observation, state: Any, step: int) -> tuple[Tensor, Tensor]:
        """Return the risk, 0-dim, in the loss's unit, and the next log q."""
        rows = torch.tensor(seen.present, device=state.device)
        before = state[rows]
        after = before + self.eta * seen.domain_losses.detach().to(state.dtype)
        after = after - after.logsumexp(0) + before.logsumexp(0)
        return after.softmax(0) @ seen.domain_losses.to(state.dtype), state.index_copy(0, rows, after)


METHODS = {
    "GroupDRO": Method(
        {"groupdro_eta": Range(1e-2, power(-3, -1))},
        lambda h: Objective(risk=GroupDRO(h["groupdro_eta"])),
        passes="domain",
    )
}
