"""IB-ERM and IB-IRM: penalize the variance of the features in each domain."""

import torch
from attrs import frozen
from torch import Tensor

from fishr.methods.method import Hparams, Method, after_warm_up, require_samples
from fishr.methods.of_penalties import METHODS as OF_PENALTIES
from fishr.methods.ranges import Range, power, whole
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.irm import IRM
from fishr.penalties.penalty import Memoryless
from fishr.penalties.schedules import StepSchedule
from fishr.training.objective import Objective


@frozen
class InformationBottleneck(Memoryless):
    """(1/K) Σ_e (1/F) Σ_f Var_e(z_f), the variance of each feature in each domain, divided by n − 1.

    K counts the domains present in the batch.

    Raises:
        InputError: when called, a domain with fewer than 2 samples.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 0]), sizes=(2,))
        >>> InformationBottleneck()(observe(torch.nn.Identity(), torch.nn.Linear(1, 2), batch), (), 0)[0]
        tensor(2.)

    Source:
        Ahuja et al. 2021 (arXiv 2106.06607).
    """

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in features squared."""
        require_samples(seen, "InformationBottleneck", 2)
        domains = seen.per_domain(seen.features.flatten(1))
        return torch.stack([features.var(0).mean() for features in domains]).mean(), state


def _with_irm(h: Hparams) -> Objective:
    at, at_ib = h["irm_penalty_anneal_iters"], h["ib_penalty_anneal_iters"]
    terms = Total(
        irm=Scaled(IRM("half_batches"), StepSchedule(at=at, before=1.0, after=h["irm_lambda"])),
        ib=Scaled(InformationBottleneck(), StepSchedule(at=at_ib, before=0.0, after=h["ib_lambda"])),
    )
    return Objective(penalty=terms, fresh_optimizer_at=(at, at_ib))


_RANGES = {
    "ib_lambda": Range(1e2, power(-1, 5)),
    "ib_penalty_anneal_iters": Range(500, whole(power(0, 4))),
}
METHODS = {
    "IB_ERM": Method(
        _RANGES,
        lambda h: after_warm_up("ib", InformationBottleneck(), h["ib_penalty_anneal_iters"], h["ib_lambda"]),
    ),
    "IB_IRM": Method({**_RANGES, **OF_PENALTIES["IRM"].ranges}, _with_irm),
}
