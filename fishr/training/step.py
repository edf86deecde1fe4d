"""One update of everything: a pure function of the training state."""

import math

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain
from fishr.errors import RunFailed
from fishr.observation import observe
from fishr.ranks import ALONE, Ranks, mean_over_ranks
from fishr.training.clipping import clipped
from fishr.training.compute import products
from fishr.training.experiment import Experiment
from fishr.training.feeding import Feed, step_seed
from fishr.training.model import Model, place
from fishr.training.objective import Loss
from fishr.training.optimizers import Gradients
from fishr.training.passes import added, pass_through
from fishr.training.scale import LEAST, GradientScale
from fishr.training.seeding import seeded
from fishr.training.state import TrainingState
from fishr.training.trees import require_tree
from fishr.types import HEAD, DomainBatch


@frozen
class TermRecord:
    """One penalty in one step: ``value``, already multiplied by ``weight``.

    Example:
        >>> TermRecord(value=0.5, weight=10.0).value
        0.5
    """

    value: float
    weight: float


@frozen
class StepRecord:
    """The numbers of one step, of the weights before its update.

    Args:
        step: updates made before this one.
        loss: what was minimized; differs from risk + l2 + terms when the objective rescales.
        risk: training error.
        l2: the weights' squared norm times its factor.
        terms: each penalty by name.
        domain_losses: mean loss of each training domain in the batch.

    Example:
        >>> StepRecord(step=0, loss=0.7, risk=0.7, l2=0.0, terms={}, domain_losses=(0.6, 0.8)).risk
        0.7
    """

    step: int
    loss: float
    risk: float
    l2: float
    terms: dict[str, TermRecord]
    domain_losses: tuple[float, ...]


class NotFinite(RunFailed):
    """A part of the loss, or a parameter, is infinite or not a number.

    Args:
        step: updates made before.
        term: the first part that is not finite: "risk", "l2", a penalty's name, "loss" for the sum, or
            "parameter " and its name.
        value: what it was.

    Example:
        >>> raise NotFinite(step=12, term="fishr", value=float("nan"))
        Traceback (most recent call last):
            ...
        fishr.training.step.NotFinite: step 12: fishr is nan, expected a finite number; try a smaller learning rate
    """

    def __init__(self, step: int, term: str, value: float) -> None:
        """Compose the message."""
        super().__init__(f"step {step}: {term} is {value}, expected a finite number; try a smaller learning rate")
        self.step = step
        self.term = term
        self.value = value


def advance(
    model: Model,
    experiment: Experiment,
    state: TrainingState,
    source: tuple[Domain, ...] | DomainBatch | Feed,
    ranks: Ranks = ALONE,
) -> tuple[TrainingState, StepRecord]:
    """One step: draw a batch, measure, update.

    A pure function of ``state`` and ``source``: neither changes, and ``model`` is only the place to compute in.
    No ``.grad`` is written and torch's global generators are left as they were.

    Args:
        model: the experiment's modules, on the state's device.
        experiment: the run.
        state: from ``initial_state`` or the previous step.
        source: the training domains to draw the batch from, the batch itself, or what gives the same batches.
        ranks: the processes that share the batch; a batch that is given is this one's part. All of them call with
            the same state, and get the same.

    Returns:
        The next state and the step's numbers.

    Raises:
        RankLost: another rank is gone.
        NotFinite: a part of the loss is infinite or not a number.
        InputError: the state is not this model's, or a penalty's new state is no tree of tensors without a graph.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.state import build_model, first_state
        >>> experiment = colored_digits()
        >>> domains = experiment.data(experiment.seed, None)
        >>> model = build_model(experiment, domains)
        >>> state, record = advance(model, experiment, first_state(experiment, model, 2), domains.training)
        >>> state.step, record.step, sorted(record.terms)
        (1, 0, ['fishr'])
    """
    generator = torch.Generator()
    generator.set_state(state.generator)
    batch = _batch(experiment, source, generator, ranks)
    # Of another stream on each rank, so that their random layers differ.
    seed = step_seed(generator) + (ranks.number << 20)

    place(model, state.parameters, state.buffers)
    trainable = {name: p for name, p in model.parameters().items() if p.requires_grad}
    measured = _measure(model, experiment, state, batch, tuple(trainable.values()), seed, ranks)
    gradients = mean_over_ranks(measured.gradients, ranks)
    usable = None if state.scale is None else _all_finite(gradients)
    if experiment.clip_norm is not None:
        gradients = clipped(gradients, experiment.clip_norm)
    # Reading the numbers waits for the device, so it comes after all of its work is queued.
    record = _record(state.step, measured.loss, measured.domain_losses)
    require_tree(measured.penalty, "penalty state")

    weights, memory = tuple(state.parameters[name] for name in trainable), state.optimizer
    if state.step == experiment.objective.fresh_optimizer_at:
        memory = experiment.optimizer.init(weights)
    if usable is None or usable:
        weights, memory = experiment.optimizer.update(gradients, memory, weights)
    after = TrainingState(
        step=state.step + 1,
        parameters=state.parameters | dict(zip(trainable, weights, strict=True)),
        buffers={name: buffer.detach().clone() for name, buffer in model.buffers().items()},
        optimizer=memory,
        penalty=measured.penalty,
        generator=generator.get_state(),
        scale=None if state.scale is None else _next_scale(state.scale, bool(usable), state.step),
    )
    return after, record


@frozen(eq=False)
class _Measured:
    """A batch's loss, the penalties' next state, and this rank's gradients, one a weight."""

    loss: Loss
    domain_losses: Tensor
    penalty: object
    gradients: Gradients


def _measure(
    model: Model,
    experiment: Experiment,
    state: TrainingState,
    batch: DomainBatch,
    weights: tuple[Tensor, ...],
    seed: int,
    ranks: Ranks,
) -> _Measured:
    with seeded(seed, batch.inputs.device):
        # Moments of the featurizer's layers read the inputs again, which its pass may overwrite.
        inputs = batch.inputs if experiment.layers == HEAD else batch.inputs.clone()
        passed = pass_through(model.featurizer, experiment.compute, inputs, weights, seed, model.call)
        seen = observe(
            model.featurizer,
            model.head,
            batch,
            experiment.loss,
            experiment.moments_route,
            ranks,
            features=passed.features,
            layers=experiment.layers,
        )
        with products("ieee"):
            loss, penalty = experiment.objective.evaluate(seen, weights, state.penalty, state.step)
            gradients, by_features = _gradients(loss.total, weights, passed.features)
        if by_features is not None:
            scale = 1.0 if state.scale is None else state.scale.value
            gradients = added(gradients, passed.pull(by_features, scale))
    return _Measured(loss, seen.domain_losses, penalty, gradients)


def _batch(
    experiment: Experiment,
    source: tuple[Domain, ...] | DomainBatch | Feed,
    generator: torch.Generator,
    ranks: Ranks,
) -> DomainBatch:
    match source:
        case DomainBatch():
            return source
        case Feed():
            return source(generator)
        case _:
            return experiment.batches.draw(source, generator, ranks)


def _gradients(total: Tensor, weights: tuple[Tensor, ...], features: Tensor) -> tuple[Gradients, Tensor | None]:
    """By the weights directly, as the head's, and by the features."""
    if not features.requires_grad:
        return torch.autograd.grad(total, weights, allow_unused=True), None
    *direct, by_features = torch.autograd.grad(total, (*weights, features), allow_unused=True)
    return tuple(direct), by_features


def _all_finite(gradients: Gradients) -> Tensor:
    return torch.stack([g.isfinite().all() for g in gradients if g is not None]).all()


def _next_scale(scale: GradientScale, finite: bool, step: int) -> GradientScale:
    after = scale.after(finite)
    if after.value < LEAST:
        raise NotFinite(step, "gradient", float("inf"))
    return after


def _record(step: int, loss: Loss, domain_losses: Tensor) -> StepRecord:
    parts = {"risk": loss.risk, "l2": loss.l2} | {name: term.value for name, term in loss.terms.items()}
    scalars = [*parts.values(), loss.total, *domain_losses]
    # One transfer from the device for all of them, in their own type: not every device has float64.
    wide = torch.float64 if any(s.dtype == torch.float64 for s in scalars) else torch.float32
    together = torch.stack([s.detach().to(loss.total.device, wide) for s in scalars]).cpu()
    values = [float(value) for value in together]
    risk, l2, *terms = values[: len(parts)]
    total, *each = values[len(parts) :]
    for name, value in [*zip(parts, values, strict=False), ("loss", total)]:
        if not math.isfinite(value):
            raise NotFinite(step, name, value)
    weights = (term.weight for term in loss.terms.values())
    records = {n: TermRecord(v, float(w)) for n, v, w in zip(loss.terms, terms, weights, strict=True)}
    return StepRecord(step, total, risk, l2, records, tuple(each))
