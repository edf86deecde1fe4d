"""MMD: match the distributions of the features across domains by their maximum mean discrepancy."""

from typing import ClassVar

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.errors import InputError
from fishr.methods.method import Method
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Memoryless, require_present
from fishr.training.objective import Objective


def check_gammas(penalty: object, attribute: object, gammas: tuple[float, ...]) -> None:
    """Refuse no kernel, or one whose rate is not positive."""
    if not gammas or not all(gamma > 0 for gamma in gammas):
        raise InputError(f"gammas: got {gammas}, expected one or more numbers greater than 0")


@frozen
class MMD(Memoryless):
    """2/(K(K−1)) Σ_{i<j} [k(i, i) + k(j, j) − 2 k(i, j)], k(i, j) the mean kernel of samples of domains i and j.

    The kernel of two samples is Σ_γ exp(−γ ‖z − z'‖²). A sample's kernel with itself is part of k(i, i). Sums and K
    are over the domains present in the batch.

    Args:
        gammas: γ of the sum of Gaussian kernels, 1/feature².

    Raises:
        InputError: a γ that is not positive; when called, fewer than 2 domains.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0]), sizes=(1, 1))
        >>> MMD(gammas=(1.0,))(observe(torch.nn.Identity(), torch.nn.Linear(1, 2), batch), (), 0)[0]  # 2 − 2/e
        tensor(1.2642)

    Source:
        Gretton et al. 2012; Li et al., CVPR 2018, with DomainBed's kernels.
    """

    gammas: tuple[float, ...] = field(default=(1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3), validator=check_gammas)
    least_domains: ClassVar[int] = 2

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim."""
        require_present(seen, "MMD", self.least_domains)
        return discrepancy(seen.per_domain(seen.features.flatten(1)), self.gammas), state


def discrepancy(groups: tuple[Tensor, ...], gammas: tuple[float, ...]) -> Tensor:
    """Return the mean over pairs of groups [n, F] of their squared maximum mean discrepancy."""
    rows, sizes = torch.cat(groups), [len(group) for group in groups]
    norms = rows.square().sum(1)
    distances = (norms.unsqueeze(1) + norms - 2 * rows @ rows.T).clamp(min=1e-30)
    kernel = sum((torch.exp(-gamma * distances) for gamma in gammas), torch.zeros_like(distances))
    blocks = torch.stack([torch.stack([part.mean() for part in row.split(sizes, 1)]) for row in kernel.split(sizes)])
    count = len(sizes)
    return 2 * (count * blocks.diagonal().sum() - blocks.sum()) / (count * (count - 1))


METHODS = {
    "MMD": Method(
        {"mmd_gamma": Range(1.0, power(-1, 1))},
        lambda h: Objective(penalty=Total(mmd=Scaled(MMD(), h["mmd_gamma"]))),
        passes="domain",
    )
}
