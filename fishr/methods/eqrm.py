"""EQRM: a risk that is a quantile of the domains' risks."""

from math import sqrt
from typing import Any, ClassVar, Literal

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import number, one_of
from fishr.errors import InputError
from fishr.methods.method import Hparams, Method
from fishr.methods.ranges import Range, power, uniform
from fishr.observation import Observation
from fishr.penalties.penalty import Memoryless
from fishr.penalties.schedules import StepSchedule
from fishr.training.objective import Objective

_BISECTIONS = 32


def _share(risk: object, attribute: object, value: float) -> None:
    if not 0 < value < 1:
        raise InputError(f"quantile: got {value}, expected a number greater than 0 and less than 1")


@frozen
class EQRM(Memoryless):
    """The α-quantile of the domains' risks, from a Gaussian kernel density of bandwidth 1.06 · std · K^(−1/5); a risk.

    Before step ``burn_in`` it is the mean risk. The quantile x has (1/K) Σ_e Φ((x − R_e) / h) = α. K counts the domains
    present in the batch; of one domain it is its risk.

    Args:
        quantile: α.
        burn_in: first step of the quantile.
        form: ``"paper"`` has the quantile's gradient; ``"domainbed"`` that of 32 bisections whose choices are
            constants, which is a mixture of the gradients of the two ends that the search starts from.

    Raises:
        InputError: α outside 0 to 1, or a negative burn-in.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, 0.0]), sizes=(1, 1))
        >>> seen = observe(torch.nn.Identity(), torch.nn.Identity(), batch, loss=lambda logits, labels: logits[:, 0])
        >>> value, _ = EQRM(quantile=0.9, burn_in=1)(seen, (), step=1)  # bandwidth 1.305
        >>> round(value.item(), 3), EQRM(quantile=0.9, burn_in=1)(seen, (), step=0)[0]
        (3.137, tensor(1.))

    Source:
        Eastwood et al. 2022 (arXiv 2207.09944).
    """

    quantile: float = field(default=0.75, validator=_share)
    burn_in: float = field(default=0.0, validator=number())
    form: Literal["domainbed", "paper"] = field(default="domainbed", validator=one_of("domainbed", "paper"))
    compares_domains: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    per_head: ClassVar[tuple[str, ...]] = ("quantile",)

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the risk, 0-dim, in the loss's unit."""
        risks = seen.domain_losses
        if step < self.burn_in or len(risks) == 1:
            return risks.mean(), state
        width = 1.06 * risks.std() * len(risks) ** -0.2
        shift = width * sqrt(2) * torch.erfinv(risks.new_ones(()) * (2 * self.quantile - 1))
        low, high = risks.min() + shift, risks.max() + shift
        middle = (low + high) / 2
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            above = _distribution(middle, risks, width) > self.quantile
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        if self.form == "domainbed":
            return middle, state
        found = middle.detach()
        density = torch.exp(-(((found - risks) / width) ** 2) / 2).mean() / (width * 2.5066282746310002)
        # Its value is the quantile, its gradient that of the implicit function.
        gap = _distribution(found, risks, width)
        return found - (gap - gap.detach()) / density.detach(), state


def _distribution(x: Tensor, risks: Tensor, width: Tensor) -> Tensor:
    return (torch.erf((x - risks) / (width * sqrt(2))).mean() + 1) / 2


def _reset(h: Hparams) -> int | None:
    """Return the step of the new optimizer; at a drawn burn-in, which is no whole number, DomainBed makes none."""
    burn_in: Any = h["eqrm_burnin_iters"]
    return int(burn_in) if burn_in == int(burn_in) else None


def _changes(h: Hparams) -> dict[str, Any]:
    at = _reset(h)
    return {} if at is None else {"lr_schedule": StepSchedule(at=at, before=1.0, after=h["eqrm_lr"] / h["lr"])}


METHODS = {
    "EQRM": Method(
        {
            "eqrm_quantile": Range(0.75, uniform(0.5, 0.99)),
            "eqrm_burnin_iters": Range(2500, power(2.5, 3.5)),
            "eqrm_lr": Range(1e-6, power(-7, -5)),
        },
        lambda h: Objective(
            risk=EQRM(h["eqrm_quantile"], h["eqrm_burnin_iters"]),
            fresh_optimizer_at=_reset(h),
        ),
        _changes,
        passes="domain",
    )
}
