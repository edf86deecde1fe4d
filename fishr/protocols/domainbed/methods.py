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
from fishr.penalties.penalty import Penalty
from fishr.penalties.schedules import StepSchedule
from fishr.penalties.vrex import VREx
from fishr.protocols.domainbed.hyperparameters import Range, power_of_ten, whole_power_of_ten
from fishr.training.checks import number
from fishr.training.objective import Objective

Hparams = Mapping[str, Any]
WEIGHT, WARM_UP = "lambda", "penalty_anneal_iters"


def _penalized(name: str, penalty: Penalty, at: int, before: float, after: float) -> Objective:
    # Each of them drops the optimizer's memory when the weight jumps.
    return Objective(
        risk=ERM(over="domains"),
        penalty=Total(**{name: Scaled(penalty, StepSchedule(at=at, before=before, after=after))}),
        fresh_optimizer_at=at,
    )


def _erm(hparams: Hparams) -> Objective:
    return Objective(risk=ERM(over="domains"))


def _fishr(hparams: Hparams) -> Objective:
    return _penalized("fishr", Fishr(ema=hparams["ema"]), hparams[WARM_UP], before=0.0, after=hparams[WEIGHT])


def _irm(hparams: Hparams) -> Objective:
    penalty = IRM(form="half_batches")
    return _penalized("irm", penalty, hparams["irm_penalty_anneal_iters"], before=1.0, after=hparams["irm_lambda"])


def _vrex(hparams: Hparams) -> Objective:
    penalty = VREx(form="variance")
    return _penalized("vrex", penalty, hparams["vrex_penalty_anneal_iters"], before=1.0, after=hparams["vrex_lambda"])


_OBJECTIVES: Mapping[str, Callable[[Hparams], Objective]] = MappingProxyType(
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
        penalty: what is added to the risk.
        weight: of the penalty after the warm-up, by default; its hyper-parameter is called ``lambda``.
        weight_powers: powers of ten from lowest to highest between which it is drawn.
        warm_up: updates before the weight rises, by default; ``penalty_anneal_iters``.
        warm_up_powers: powers of ten between which it is drawn.
        before: weight during the warm-up.

    Raises:
        InputError: a number outside its range.

    Example:
        >>> mine = OwnMethod(VREx(form="pairwise"), weight=10.0)
        >>> mine.objective({"lambda": 10.0, "penalty_anneal_iters": 500}).penalty.terms["penalty"].schedule(500)
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

    def objective(self, hparams: Hparams) -> Objective:
        """The objective of drawn hyper-parameters."""
        return _penalized("penalty", self.penalty, hparams[WARM_UP], self.before, hparams[WEIGHT])


def objective_of(algorithm: str, hparams: Hparams, own: Mapping[str, OwnMethod]) -> Objective:
    """What an algorithm minimizes.

    Args:
        algorithm: one of ``ALGORITHMS`` or of ``own``.
        hparams: drawn, by DomainBed's names.
        own: methods by name.

    Example:
        >>> objective_of("IRM", {"irm_lambda": 100.0, "irm_penalty_anneal_iters": 500}, {}).fresh_optimizer_at
        500
    """
    return own[algorithm].objective(hparams) if algorithm in own else _OBJECTIVES[algorithm](hparams)
