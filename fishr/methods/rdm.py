"""RDM: match the distribution of the losses in the worst domain to that of all losses."""

from typing import Any, ClassVar

from attrs import field, frozen
from torch import Tensor

from fishr.methods.method import Hparams, Method, require_samples
from fishr.methods.mmd import MMD, check_gammas, discrepancy
from fishr.methods.ranges import Range, fixed, uniform, whole
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Memoryless, require_present
from fishr.penalties.schedules import StepSchedule
from fishr.training.objective import Objective


@frozen
class RDM(Memoryless):
    """Squared maximum mean discrepancy between the losses of the domain with the largest risk and all losses.

    The kernel is that of ``MMD``, of losses instead of features. Domains are those present in the batch.

    Args:
        gammas: γ of the sum of Gaussian kernels, 1/loss².

    Raises:
        InputError: a γ that is not positive; when called, fewer than 2 domains.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [0.0]]), torch.tensor([0.0, 0.0]), sizes=(1, 1))
        >>> seen = observe(torch.nn.Identity(), torch.nn.Identity(), batch, loss=lambda logits, labels: logits[:, 0])
        >>> RDM()(seen, (), 0)[0]
        tensor(0.)

    Source:
        Nguyen et al. 2024 (arXiv 2310.18598).
    """

    gammas: tuple[float, ...] = field(default=(1e-4, *MMD().gammas), validator=check_gammas)
    least_domains: ClassVar[int] = 2

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim."""
        require_present(seen, "RDM", self.least_domains)
        worst = seen.per_domain(seen.losses)[int(seen.domain_losses.argmax())]
        return discrepancy((worst.unsqueeze(1), seen.losses.unsqueeze(1)), self.gammas), state


@frozen
class LossVariance(Memoryless):
    """Variance of all losses plus that of the losses of the domain with the largest risk, each divided by n − 1.

    Raises:
        InputError: when called, a domain with fewer than 2 samples.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 0.0]), sizes=(2,))
        >>> seen = observe(torch.nn.Identity(), torch.nn.Identity(), batch, loss=lambda logits, labels: logits[:, 0])
        >>> LossVariance()(seen, (), 0)[0]
        tensor(4.)

    Source:
        Nguyen et al. 2024 (arXiv 2310.18598), a term of RDM.
    """

    compares_domains: ClassVar[bool] = True

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the penalty, 0-dim, in the loss's unit squared."""
        require_samples(seen, "LossVariance", 2)
        worst = seen.per_domain(seen.losses)[int(seen.domain_losses.argmax())]
        return seen.losses.var() + worst.var(), state


def _objective(h: Hparams) -> Objective:
    at = h["rdm_penalty_anneal_iters"]
    matching = Scaled(RDM(), StepSchedule(at=at, before=0.0, after=h["rdm_lambda"]))
    variance = Scaled(LossVariance(), StepSchedule(at=at, before=0.0, after=h["variance_weight"]))
    return Objective(penalty=Total(rdm=matching, variance=variance), fresh_optimizer_at=at)


def _changes(h: Hparams) -> dict[str, Any]:
    at = h["rdm_penalty_anneal_iters"]
    return {"lr_schedule": StepSchedule(at=at, before=1.0, after=h["rdm_lr"] / h["lr"])}


def _ranges(dataset: str) -> dict[str, Range]:
    ranges = dict[str, Range]()
    if dataset in ("PACS", "TerraIncognita"):
        ranges |= {"rdm_lambda": Range(5.0, uniform(1.0, 10.0))}
    if dataset == "DomainNet":
        ranges |= {
            "rdm_lambda": Range(0.5, uniform(0.1, 1.0)),
            "rdm_penalty_anneal_iters": Range(2400, whole(uniform(1500, 3000))),
        }
    if dataset in ("TerraIncognita", "OfficeHome", "DomainNet"):
        ranges |= {"variance_weight": fixed(0.0)}
    if dataset in ("TerraIncognita", "DomainNet"):
        ranges |= {"batch_size": Range(40, whole(uniform(30, 60)))}
    elif dataset not in ("RotatedMNIST", "ColoredMNIST"):
        ranges |= {"batch_size": Range(88, whole(uniform(70, 100)))}
    return ranges


METHODS = {
    "RDM": Method(
        {
            "rdm_lambda": Range(5.0, uniform(0.1, 10.0)),
            "rdm_penalty_anneal_iters": Range(1500, whole(uniform(800, 2700))),
            "variance_weight": Range(0.004, uniform(0.001, 0.007)),
            "rdm_lr": Range(1.5e-5, uniform(8e-6, 2e-5)),
        },
        _objective,
        _changes,
        _ranges,
    )
}
