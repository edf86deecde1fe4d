"""CausIRL: match the features of two pools, into which each domain is cut at random."""

from typing import ClassVar, Literal

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import one_of
from fishr.methods.coral import mean_and_covariance_gap
from fishr.methods.method import Method
from fishr.methods.mmd import MMD, discrepancy
from fishr.methods.ranges import Range, power
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Memoryless
from fishr.training.objective import Objective


@frozen
class CausIRL(Memoryless):
    """Distance of CORAL or MMD between two pools of samples: those before and after a random cut of each domain.

    The cut of a domain of n samples is uniform on 0 to n − 1, drawn from ``seen.generator("causirl")``. The distance is
    zero where a pool has fewer than 2 samples.

    Args:
        distance: ``"coral"``, of means and covariances, or ``"mmd"``, with the kernel of ``MMD``.

    Raises:
        InputError: another distance; when called, an observation without a seed.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.ones(8, 1), torch.tensor([0, 1] * 4), sizes=(4, 4))
        >>> CausIRL("mmd")(observe(torch.nn.Identity(), torch.nn.Linear(1, 2), batch, seed=0), (), 0)[0]
        tensor(0.)

    Source:
        Chevalley et al. 2022 (arXiv 2206.11646).
    """

    distance: Literal["coral", "mmd"] = field(default="coral", validator=one_of("coral", "mmd"))
    compares_domains: ClassVar[bool] = True

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim."""
        domains = seen.per_domain(seen.features.flatten(1))
        pairs = [rows.split([cut, len(rows) - cut]) for rows, cut in zip(domains, random_cuts(seen), strict=True)]
        pools = tuple(torch.cat(parts) for parts in zip(*pairs, strict=True))
        if min(map(len, pools)) < 2:
            return seen.features.new_zeros(()), state
        return mean_and_covariance_gap(pools) if self.distance == "coral" else discrepancy(pools, MMD().gammas), state


def random_cuts(seen: Observation) -> list[int]:
    """Return the number of samples of each domain in the first pool."""
    generator = seen.generator("causirl")
    return [int(torch.randint(size, (), generator=generator)) for size in seen.sizes]


_RANGES = {"mmd_gamma": Range(1.0, power(-1, 1))}
METHODS = {
    "CausIRL_CORAL": Method(
        _RANGES,
        lambda h: Objective(penalty=Total(causirl=Scaled(CausIRL("coral"), h["mmd_gamma"]))),
        passes="domain",
    ),
    "CausIRL_MMD": Method(
        _RANGES,
        lambda h: Objective(penalty=Total(causirl=Scaled(CausIRL("mmd"), h["mmd_gamma"]))),
        passes="domain",
    ),
}
