"""An experiment: all settings of a run as one frozen value."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs
from attrs import field, frozen
from attrs.validators import optional

from fishr.averages.weight_average import WeightAverage
from fishr.checks import layer_names, number, one_of, text_line, whole
from fishr.data.batches import Batches
from fishr.data.domains import DataSet
from fishr.descents.descent import Descent
from fishr.errors import InputError
from fishr.losses import Loss
from fishr.models.featurizers import Featurizer
from fishr.models.heads import Head
from fishr.penalties.penalty import compares_domains
from fishr.penalties.schedules import Schedule, as_schedule
from fishr.statistics.moments import Route
from fishr.training.compute import Compute
from fishr.training.objective import Objective
from fishr.training.optimizers import Optimizer, lr_of
from fishr.transforms.batch_transform import BatchTransform
from fishr.types import HEAD

# All layers that ``Experiment.lr_factors`` does not name.
MODEL = "model"


def _factors(values: Mapping[str, Schedule | float] | None) -> dict[str, Schedule] | None:
    return None if values is None else {layer: as_schedule(factor) for layer, factor in values.items()}


@frozen
class Experiment:
    """Settings of one run, from the data to the last step; ``attrs.evolve`` derives other runs.

    Data, featurizer, head, loss, optimizer and batches are any objects of their protocols, the library's or your own.

    Args:
        name: Name in tables.
        data: Builds the domains from the seed.
        featurizer: Builds the module from inputs to features.
        head: Builds the module from features to logits.
        loss: Per-sample loss.
        objective: Risk, penalties and weight decay.
        optimizer: Updates the parameters from their gradients.
        batches: Draws the samples of a step.
        steps: Number of updates.
        evaluate_every: Steps between two evaluations; the last step is always evaluated.
        evaluate_from: Updates before the first evaluation, from which ``evaluate_every`` counts; DomainBed evaluates
            after updates 1, 301, 601 and so on.
        checkpoint_every: Steps between two checkpoints of a run folder; the last step always makes one.
        clip_norm: Largest norm of a step's gradient, over all parameters together; None: no limit.
        layers: Layers whose per-sample gradients penalties match, by names below "featurizer" and "head";
            ``["featurizer", "head"]`` is the whole network.
        route: Route of the moments of these gradients, see ``gradient_moments``; None: ``"auto"``.
        compute: Precision, memory layout and micro-batches of a step.
        seed: Seed of data, first weights and batches.
        lr_schedule: Factor of the optimizer's learning rate, by the number of updates before the step; a number is a
            constant. A warm-up is a ``LinearSchedule``; ``Joined`` puts another schedule after it. The optimizers of
            networks that a risk, penalty or descent trains beside the model follow it too.
        lr_factors: Factors of the learning rates of layers, by names below "featurizer" and "head"; the longest name
            that a parameter is below counts. Each is a number or a schedule. At a rate of 0, weights do not change.
        transform: Changes each batch before the model sees it, such as ``Mixup``; None: nothing does.
        descent: Makes the update of several gradients, such as ``SAM``; None: one gradient, one update.
        average: Average of the weights, which is evaluated, exported and analyzed; None: the weights themselves.
        passes: ``"domain"`` passes each domain through the featurizer alone in a step, so that batch normalization in
            training mode normalizes each by its own statistics; None: all samples at once.

    Raises:
        InputError: A field is outside its range, learning rates for an optimizer without a field ``lr``, a descent
            with fp16 or with a risk that it does not fit, or passes by domain in micro-batches.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> attrs.evolve(colored_digits(), steps=0)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: steps: got 0, expected a whole number of at least 1
    """

    name: str = field(validator=text_line)
    data: DataSet
    featurizer: Featurizer
    head: Head
    loss: Loss
    objective: Objective
    optimizer: Optimizer
    batches: Batches
    steps: int = field(validator=whole(1))
    evaluate_every: int = field(default=50, validator=whole(1))
    evaluate_from: int = field(default=0, validator=whole(0))
    checkpoint_every: int = field(default=100, validator=whole(1))
    clip_norm: float | None = field(default=None, validator=optional(number(above=True)))
    layers: tuple[str, ...] = field(default=HEAD, validator=layer_names)
    route: Route | None = None
    compute: Compute = field(factory=Compute)
    seed: int = field(default=0, validator=whole(0, most=2**63 - 1))
    lr_schedule: Schedule | None = field(default=None, converter=attrs.converters.optional(as_schedule))
    lr_factors: dict[str, Schedule] | None = field(default=None, converter=_factors)
    transform: BatchTransform | None = None
    descent: Descent | None = None
    average: WeightAverage | None = None
    passes: Literal["domain"] | None = field(default=None, validator=optional(one_of("domain")))

    def __attrs_post_init__(self) -> None:
        self.learning_rates(0)
        if self.passes and self.compute.micro_batches > 1:
            raise InputError(
                f'passes: got "{self.passes}" with {self.compute.micro_batches} micro-batches, expected 1; '
                "set compute.micro_batches = 1"
            )
        if self.descent is not None:
            self._check_descent(type(self.descent).__name__, getattr(self.descent, "by_domain", False))

    def _check_descent(self, name: str, by_domain: bool) -> None:
        if self.compute.precision == "fp16":
            raise InputError(
                f"descent: got {name} in fp16, whose one loss scale does not fit several gradients; use bf16 or fp32"
            )
        if by_domain and compares_domains(self.objective.risk):
            raise InputError(
                f"descent: got {name}, which measures each domain alone, with the risk "
                f"{type(self.objective.risk).__name__}, which compares domains; leave out one of the two"
            )

    def evaluates(self, step: int) -> bool:
        """Return whether the weights after ``step`` updates are evaluated."""
        since = step - self.evaluate_from
        return step == self.steps or (step > 0 and since >= 0 and since % self.evaluate_every == 0)

    def lr_factor(self, step: int) -> float:
        """Return ``lr_schedule`` at a step."""
        return 1.0 if self.lr_schedule is None else _factor(self.lr_schedule, step, "lr_schedule")

    def learning_rates(self, step: int) -> dict[str, float]:
        """Return lr · factor · schedule at a step, by layer; nothing where the optimizer's own rate is that of all."""
        if self.lr_schedule is None and self.lr_factors is None:
            return {}
        lr = lr_of(self.optimizer, "lr_factors" if self.lr_factors else "lr_schedule")
        whole_model = self.lr_factor(step)
        factors = (self.lr_factors or {}).items()
        layers = {layer: _factor(factor, step, f"lr_factors.{layer}") for layer, factor in factors}
        # In this order, rates are those of torch's LambdaLR on groups of parameters, to the bit.
        return {layer: lr * factor * whole_model for layer, factor in {MODEL: 1.0, **layers}.items()}


def _factor(schedule: Schedule, step: int, name: str) -> float:
    factor: Any = schedule(step)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
        raise InputError(f"{name}: got {factor!r} at step {step}, expected a finite number of at least 0")
    return factor
