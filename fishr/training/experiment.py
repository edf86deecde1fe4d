"""An experiment: all settings of a run as one frozen value."""

from attrs import field, frozen
from attrs.validators import optional

from fishr.checks import layer_names, number, text_line, whole
from fishr.data.batches import Batches
from fishr.data.domains import DataSet
from fishr.losses import Loss
from fishr.models.featurizers import Featurizer
from fishr.models.heads import Head
from fishr.statistics.moments import Route
from fishr.training.compute import Compute
from fishr.training.objective import Objective
from fishr.training.optimizers import Optimizer
from fishr.types import HEAD


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

    Raises:
        InputError: A field is outside its range.

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

    @property
    def moments_route(self) -> Route:
        """Return the route of gradient moments."""
        return self.route or "auto"

    def evaluates(self, step: int) -> bool:
        """Return whether the weights after ``step`` updates are evaluated."""
        since = step - self.evaluate_from
        return step == self.steps or (step > 0 and since >= 0 and since % self.evaluate_every == 0)
