"""The algorithms that can be trained, from hyper-parameters to objectives: the benchmark's, and one's own."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from fishr.errors import InputError
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.erm import ERM
from fishr.penalties.fishr import Fishr
from fishr.penalties.irm import IRM
from fishr.penalties.penalty import Penalty, least_domains
from fishr.penalties.schedules import StepSchedule
from fishr.penalties.vrex import VREx
from fishr.protocols.domainbed.hyperparameters import Range, power_of_ten, whole_power_of_ten
from fishr.training.checks import number
from fishr.training.objective import Objective

Hparams = Mapping[str, Any]
WEIGHT, WARM_UP = "lambda", "penalty_anneal_iters"


def _penalized(name: str, penalty: Penalty, schedule: StepSchedule, domains: int) -> Objective:
    # What compares domains is zero of a single one, and is refused there.
    terms = {} if domains < least_domains(penalty) else {name: Scaled(penalty, schedule)}
    # Each of them drops the optimizer's memory when the weight jumps.
    return Objective(risk=ERM(over="domains"), penalty=Total(**terms), fresh_optimizer_at=schedule.at)


def _erm(hparams: Hparams, domains: int) -> Objective:
    return Objective(risk=ERM(over="domains"))


def _fishr(hparams: Hparams, domains: int) -> Objective:
    schedule = StepSchedule(at=hparams[WARM_UP], before=0.0, after=hparams[WEIGHT])
    return _penalized("fishr", Fishr(ema=hparams["ema"]), schedule, domains)


def _irm(hparams: Hparams, domains: int) -> Objective:
    schedule = StepSchedule(at=hparams["irm_penalty_anneal_iters"], before=1.0, after=hparams["irm_lambda"])
    return _penalized("irm", IRM(form="half_batches"), schedule, domains)


def _vrex(hparams: Hparams, domains: int) -> Objective:
    schedule = StepSchedule(at=hparams["vrex_penalty_anneal_iters"], before=1.0, after=hparams["vrex_lambda"])
    return _penalized("vrex", VREx(form="variance"), schedule, domains)


_OBJECTIVES: Mapping[str, Callable[[Hparams, int], Objective]] = MappingProxyType(
    {"ERM": _erm, "Fishr": _fishr, "IRM": _irm, "VREx": _vrex}
)
ALGORITHMS = tuple(_OBJECTIVES)
"""By DomainBed's names.

Source: the conventions of Gulrajani and Lopez-Paz, ICLR 2021, and of Ramé et al., ICML 2022, section 6.
"""


def _powers(record: object, attribute: Any, value: tuple[float, ...]) -> None:
    if len(value) != 2 or not value[0] <= value[1]:
        raise InputError(f"{attribute.name}: got {value}, expected the lowest and the highest power of ten")


@frozen
class OwnMethod:
    """A row of one's own in the table: a penalty whose weight and warm-up are drawn as those of the others.

    Args:
        penalty: what is added to the risk, but where fewer domains are trained on than it needs.
        weight: of the penalty after the warm-up, by default; its hyper-parameter is called ``lambda``.
        weight_powers: powers of ten from lowest to highest between which it is drawn.
        warm_up: updates before the weight rises, by default; ``penalty_anneal_iters``.
        warm_up_powers: powers of ten between which it is drawn.
        before: weight during the warm-up.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> mine = OwnMethod(VREx(form="pairwise"), weight=10.0)
        >>> drawn = {"lambda": 10.0, "penalty_anneal_iters": 500}
        >>> mine.objective(drawn, domains=2).penalty.terms["penalty"].schedule(500)
        10.0
    """

    penalty: Penalty
    weight: float = field(default=1.0, validator=number())
    weight_powers: tuple[float, float] = field(default=(-1.0, 5.0), validator=_powers)
    warm_up: int = 500
    warm_up_powers: tuple[float, float] = field(default=(0.0, 4.0), validator=_powers)
    before: float = field(default=0.0, validator=number())

    @property
    def ranges(self) -> dict[str, Range]:
        """Its hyper-parameters beside the shared ones."""
        return {
            WEIGHT: Range(self.weight, power_of_ten(*self.weight_powers)),
            WARM_UP: Range(self.warm_up, whole_power_of_ten(*self.warm_up_powers)),
        }

    def objective(self, hparams: Hparams, domains: int) -> Objective:
        """The objective of drawn hyper-parameters on so many training domains."""
        schedule = StepSchedule(at=hparams[WARM_UP], before=self.before, after=hparams[WEIGHT])
        return _penalized("penalty", self.penalty, schedule, domains)


def objective_of(algorithm: str, hparams: Hparams, own: Mapping[str, OwnMethod], domains: int) -> Objective:
    """What an algorithm minimizes.

    On a single training domain, as pairs of test environments of three leave it, a penalty that compares domains
    (``least_domains = 2``, as V-REx and Fishr) is zero and left out.

    Args:
        algorithm: one of ``ALGORITHMS`` or of ``own``.
        hparams: drawn, by DomainBed's names.
        own: methods by name.
        domains: how many are trained on.

    Example:
        >>> drawn = {"irm_lambda": 100.0, "irm_penalty_anneal_iters": 500}
        >>> objective_of("IRM", drawn, {}, domains=2).fresh_optimizer_at
        500
    """
    if algorithm in own:
        return own[algorithm].objective(hparams, domains)
    return _OBJECTIVES[algorithm](hparams, domains)
