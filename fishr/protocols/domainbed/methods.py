"""Methods of the benchmark's tables, one entry each: its hyper-parameters, their draws, and its objective."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from fishr.checks import number
from fishr.errors import InputError
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.erm import ERM
from fishr.penalties.fishr import Fishr
from fishr.penalties.irm import IRM
from fishr.penalties.penalty import Penalty, least_domains
from fishr.penalties.schedules import Schedule, StepSchedule
from fishr.penalties.vrex import VREx
from fishr.protocols.domainbed.hyperparameters import Range, power, uniform, whole
from fishr.training.objective import Objective

Hparams = Mapping[str, Any]
WEIGHT, WARM_UP = "lambda", "penalty_anneal_iters"


@frozen
class Method:
    """A method of DomainBed: hyper-parameters beside the shared ones, and the objective that they give."""

    ranges: Mapping[str, Range]
    penalty: Callable[[Hparams], Penalty] | None = None
    term: str = "penalty"
    prefix: str = ""  # of the names of its weight and warm-up
    before: float = 0.0  # weight until the warm-up ends
    lr_schedule: Schedule | None = None  # None: that of the settings
    lr_factors: dict[str, Schedule] | None = None  # likewise

    def objective(self, hparams: Hparams, domains: int) -> Objective:
        """Return the objective on a number of training domains; on one, a penalty that compares domains is left out."""
        if self.penalty is None:
            return Objective(risk=ERM(over="domains"))
        penalty = self.penalty(hparams)
        at, after = hparams[self.prefix + WARM_UP], hparams[self.prefix + WEIGHT]
        schedule = StepSchedule(at=at, before=self.before, after=after)
        terms = {} if domains < least_domains(penalty) else {self.term: Scaled(penalty, schedule)}
        # DomainBed drops the optimizer's memory when the weight jumps.
        return Objective(risk=ERM(over="domains"), penalty=Total(**terms), fresh_optimizer_at=schedule.at)


def _powers(record: object, attribute: Any, value: tuple[float, ...]) -> None:
    if len(value) != 2 or not value[0] <= value[1]:
        raise InputError(f"{attribute.name}: got {value}, expected the lowest and the highest power of ten")


@frozen
class OwnMethod:
    """A penalty whose weight and warm-up are drawn: a custom method, as a plan describes it."""

    penalty: Penalty
    weight: float = field(default=1.0, validator=number())  # default after the warm-up
    # lowest and highest power of ten
    weight_powers: tuple[float, float] = field(default=(-1.0, 5.0), validator=_powers)
    warm_up: int = 500  # default number of updates
    warm_up_powers: tuple[float, float] = field(default=(0.0, 4.0), validator=_powers)  # likewise
    before: float = field(default=0.0, validator=number())  # weight during the warm-up
    lr_schedule: Schedule | None = None  # factor of the drawn learning rate; None: that of the settings
    lr_factors: dict[str, Schedule] | None = None  # by layer, likewise

    def method(self, term: str = "penalty", prefix: str = "") -> Method:
        ranges = {
            prefix + WEIGHT: Range(self.weight, power(*self.weight_powers)),
            prefix + WARM_UP: Range(self.warm_up, whole(power(*self.warm_up_powers))),
        }
        rates = (self.lr_schedule, self.lr_factors)
        return Method(ranges, lambda hparams: self.penalty, term, prefix, self.before, *rates)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ERM": Method({}),
        "Fishr": Method(
            {
                WEIGHT: Range(1000.0, power(1, 4)),
                WARM_UP: Range(1500, whole(uniform(0, 5000))),
                "ema": Range(0.95, uniform(0.90, 0.99)),
            },
            lambda hparams: Fishr(ema=hparams["ema"]),
            term="fishr",
        ),
        "IRM": OwnMethod(IRM(form="half_batches"), weight=1e2, before=1.0).method("irm", "irm_"),
        "VREx": OwnMethod(VREx(form="variance"), weight=1e1, before=1.0).method("vrex", "vrex_"),
    }
)
"""By DomainBed's names.

Source: the conventions of Gulrajani and Lopez-Paz, ICLR 2021, and of Ramé et al., ICML 2022, section 6.
"""
