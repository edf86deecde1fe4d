"""Custom methods of a plan: built-in methods together, a penalty whose weight and warm-up are drawn, other parts."""

from typing import Any

from attrs import field, frozen

from fishr.averages.weight_average import WeightAverage
from fishr.checks import number
from fishr.descents.descent import Descent
from fishr.errors import InputError
from fishr.methods.combination import combined
from fishr.methods.every_method import METHODS
from fishr.methods.method import Method, after_warm_up
from fishr.methods.ranges import Range, power, whole
from fishr.penalties.penalty import Penalty
from fishr.penalties.schedules import Schedule
from fishr.protocols.domainbed.hyperparameters import hyperparameters
from fishr.transforms.batch_transform import BatchTransform


def _powers(record: object, attribute: Any, value: tuple[float, ...]) -> None:
    if len(value) != 2 or not value[0] <= value[1]:
        raise InputError(f"{attribute.name}: got {value}, expected the lowest and the highest power of ten")


@frozen
class OwnMethod:
    """A custom method of a plan: ERM, or the methods that it combines, with further parts."""

    penalty: Penalty | None = None  # penalty, whose weight and warm-up are drawn
    weight: float = field(default=1.0, validator=number())  # default weight of the penalty after the warm-up
    # lowest and highest power of ten of a drawn weight
    weight_powers: tuple[float, float] = field(default=(-1.0, 5.0), validator=_powers)
    warm_up: int = 500  # default number of updates of the warm-up
    warm_up_powers: tuple[float, float] = field(
        default=(0.0, 4.0), validator=_powers
    )  # lowest and highest power of ten of a drawn warm-up
    before: float = field(default=0.0, validator=number())  # weight during the warm-up
    lr_schedule: Schedule | None = None  # factor of the learning rate; None: that of the settings
    lr_factors: dict[str, Schedule] | None = None  # factors of layers; None: those of the settings
    combines: tuple[str, ...] = ()  # built-in methods, each with its draws
    transform: BatchTransform | None = None  # None: that of the settings
    descent: Descent | None = None  # None: that of the settings
    average: WeightAverage | None = None  # None: that of the settings

    def __attrs_post_init__(self) -> None:
        unknown = [name for name in self.combines if name not in METHODS]
        if unknown or len(set(self.combines)) < len(self.combines):
            raise InputError(f"combines: got {list(self.combines)}, expected some of {', '.join(METHODS)}, each once")
        # Refuses what cannot be combined.
        made = self.method()
        defaults = hyperparameters("PACS", made.ranges_on("PACS"), hparams_seed=0, trial_seed=0)
        made.changes(defaults)
        made.objective(defaults)

    def method(self) -> Method:
        names = ("lr_schedule", "lr_factors", "transform", "descent", "average")
        parts: dict[str, Any] = {name: getattr(self, name) for name in names}
        own = Method(changes=lambda h: {name: value for name, value in parts.items() if value is not None})
        combines = {name: METHODS[name] for name in self.combines}
        penalty = {} if self.penalty is None else {"penalty": self._drawn(self.penalty, "own_" if combines else "")}
        return combined(combines | penalty | {"the plan": own})

    def _drawn(self, penalty: Penalty, prefix: str) -> Method:
        weight, warm_up = f"{prefix}lambda", f"{prefix}penalty_anneal_iters"
        return Method(
            {
                weight: Range(self.weight, power(*self.weight_powers)),
                warm_up: Range(self.warm_up, whole(power(*self.warm_up_powers))),
            },
            lambda h: after_warm_up("penalty", penalty, h[warm_up], h[weight], self.before),
        )
