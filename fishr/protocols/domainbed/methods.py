"""Custom methods of a plan: a penalty whose weight and warm-up are drawn."""

from typing import Any

from attrs import field, frozen

from fishr.checks import number
from fishr.errors import InputError
from fishr.methods.method import Hparams, Method, after_warm_up
from fishr.methods.ranges import Range, power, whole
from fishr.penalties.penalty import Penalty
from fishr.penalties.schedules import Schedule
from fishr.training.objective import Objective


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

    def method(self) -> Method:
        ranges = {
            "lambda": Range(self.weight, power(*self.weight_powers)),
            "penalty_anneal_iters": Range(self.warm_up, whole(power(*self.warm_up_powers))),
        }
        rates = {"lr_schedule": self.lr_schedule, "lr_factors": self.lr_factors}
        changes = {name: value for name, value in rates.items() if value is not None}
        return Method(ranges, self._objective, lambda hparams: changes)

    def _objective(self, hparams: Hparams) -> Objective:
        at, weight = hparams["penalty_anneal_iters"], hparams["lambda"]
        return after_warm_up("penalty", self.penalty, at, weight, self.before)
