"""One update of everything: a pure function of the training state."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from attrs import asdict, evolve, frozen
from torch import Tensor

from fishr.checks import returned
from fishr.data.batches import share_of
from fishr.data.domains import Domain
from fishr.errors import InputError, RunFailed
from fishr.ranks import ALONE, Ranks
from fishr.seeding import named_generator
from fishr.tensor_trees import require_tree
from fishr.training.compute import LEAST, GradientScale
from fishr.training.experiment import Experiment
from fishr.training.learning_rates import StepOptimizer
from fishr.training.model import Model
from fishr.training.objective import Loss
from fishr.training.prefetch import Prefetch, step_seed
from fishr.training.state import TrainingState, moving_weights
from fishr.training.step_gradients import Seen, StepGradients
from fishr.types import DomainBatch


@frozen
class TermRecord:
    """One penalty in one step: ``value``, already multiplied by ``weight``."""

    value: float
    weight: float


@frozen
class StepRecord:
    """The numbers of one step, at the weights before its update."""

    step: int  # updates made before
    loss: float  # minimized; differs from risk + l2 + terms when the objective rescales
    risk: float
    l2: float  # squared norm of the weights times its factor
    terms: dict[str, TermRecord]
    domain_losses: tuple[float, ...]  # mean of each training domain in the batch; NaN of a missing one
    lr: dict[str, float] | None = None  # of the update, by layer, where a schedule or factors changed it


def step_entry(record: StepRecord, names: Sequence[str]) -> dict[str, Any]:
    """Return a record as plain values for JSON, with domain losses by name, but for missing domains."""
    losses = zip(names, record.domain_losses, strict=True)
    entry = asdict(record, recurse=False) | {
        "terms": {name: asdict(term) for name, term in record.terms.items()},
        "domain_losses": {name: loss for name, loss in losses if not math.isnan(loss)},
    }
    return {name: value for name, value in entry.items() if value is not None}


class NotFinite(RunFailed):
    """A part of the loss, or a parameter, is infinite or not a number."""

    def __init__(self, step: int, term: str, value: float) -> None:
        advice = "try a smaller learning rate" if step else "check the inputs and the weights of the penalties"
        super().__init__(f"step {step}: {term} is {value}, expected a finite number; {advice}")
        self.step = step
        self.term = term
        self.value = value


def advance(
    model: Model,
    experiment: Experiment,
    state: TrainingState,
    source: tuple[Domain, ...] | DomainBatch | Prefetch,
    ranks: Ranks = ALONE,
) -> tuple[TrainingState, StepRecord]:
    """Draw a batch, compute loss and gradients, and return the next state and the numbers of the step.

    A pure function of ``state`` and ``source``: neither changes, and ``model`` is only the workspace. No ``.grad`` is
    written, and torch's global generators are restored.

    Args:
        model: the experiment's modules, on the state's device.
        experiment: the run.
        state: from ``initial_state`` or the previous step.
        source: the training domains to draw the batch from, a batch, or prefetched batches.
        ranks: the processes that share the batch; all of them call with the same state, and get the same. A batch
            that is given is this one's part, or with a transform all of it.

    Raises:
        RankLost: another rank is gone.
        NotFinite: a part of the loss is infinite or not a number.
        InputError: the state is not this model's, or a penalty's new state is no tree of tensors without a graph.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training.model import build_model
        >>> from fishr.training.state import first_state
        >>> experiment = colored_digits()
        >>> domains = experiment.data(experiment.seed, None)
        >>> model = build_model(experiment, domains)
        >>> state, record = advance(model, experiment, first_state(experiment, model, 2), domains.training)
        >>> state.step, record.step, sorted(record.terms)
        (1, 0, ['fishr'])
    """
    generator = torch.Generator()
    generator.set_state(state.generator)
    batch, seed = _drawn(model, experiment, source, generator, ranks)
    gradients = StepGradients(model, experiment, state, batch, ranks, seed)
    weights = {name: state.parameters[name] for name, p in model.parameters().items() if p.requires_grad}
    optimizer, memory, descent = StepOptimizer(experiment, state.step), state.optimizer, state.descent
    if optimizer.fresh:
        memory = optimizer.init(weights)
    usable = None
    if experiment.descent is None:
        measured = gradients(weights)
        usable = None if state.scale is None else _all_finite(measured.gradients.values())
        if usable is None or usable:
            weights, memory = optimizer.update(measured.gradients, memory, weights)
    else:
        made = experiment.descent(gradients, optimizer, weights, memory, descent)
        weights, memory, descent, measured = made.weights, made.memory, made.state, made.measured
        require_tree(descent, "descent state")
    require_tree(measured.penalty, "penalty state")
    parameters = state.parameters | weights
    after = TrainingState(
        step=state.step + 1,
        parameters=parameters,
        buffers=measured.buffers,
        optimizer=memory,
        penalty=measured.penalty,
        generator=generator.get_state(),
        scale=None if state.scale is None else _next_scale(state.scale, bool(usable), state.step),
        average=_next_average(gradients, parameters, measured.buffers),
        descent=descent,
    )
    # Reading the numbers waits for the device, so it comes after all of its work is queued.
    record = evolve(_record(state.step, gradients.seen), lr=optimizer.changed_rates)
    if experiment.descent is not None:
        _require_terms(experiment, record)
    return after, record


def _drawn(
    model: Model,
    experiment: Experiment,
    source: tuple[Domain, ...] | DomainBatch | Prefetch,
    generator: torch.Generator,
    ranks: Ranks,
) -> tuple[DomainBatch, int]:
    """Return this rank's batch, transformed, and the seed of the step, the same on all ranks."""
    # A transform may mix samples of different ranks, so that each draws the whole batch.
    drawing = ranks if experiment.transform is None else ALONE
    match source:
        case DomainBatch():
            batch = source
        case Prefetch():
            batch = source(generator)
        case _:
            batch = returned("batches", experiment.batches.draw(source, generator, drawing), DomainBatch)
    seed = step_seed(generator)
    if experiment.transform is not None:
        transformed = experiment.transform(batch, named_generator(seed, "transform"), model.outputs)
        batch = share_of(returned("transform", transformed, DomainBatch), ranks)
    return batch, seed


def _next_average(gradients: StepGradients, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
    """Return the average's state after a step, whose batch it may pass through weights of its own."""
    average, before = gradients.experiment.average, gradients.state
    if average is None:
        return before.average
    moved = moving_weights(gradients.model, parameters, buffers)
    state = average.update(moved, before.average, before.step + 1)
    passed = getattr(average, "passed", None)
    if passed is not None:
        state = passed(state, before.average, gradients.through)
    require_tree(state, "average state")
    return state


def _all_finite(gradients: Iterable[Tensor | None]) -> Tensor:
    found = [g.isfinite().all() for g in gradients if g is not None]
    return torch.stack(found).all() if found else torch.tensor(True)


def _next_scale(scale: GradientScale, finite: bool, step: int) -> GradientScale:
    after = scale.after(finite)
    if after.value < LEAST:
        raise NotFinite(step, "gradient", float("inf"))
    return after


def _require_terms(experiment: Experiment, record: StepRecord) -> None:
    """Refuse a descent that left out a penalty."""
    for name in experiment.objective.penalty.terms:
        if name not in record.terms:
            raise InputError(
                f"descent: got {type(experiment.descent).__name__}, which does not measure the penalty {name}; in one "
                "of your own call gradients.compared before each update, else leave out one of the two"
            )


def _record(step: int, seen: Sequence[Seen]) -> StepRecord:
    """Return the record of the first measurement of the objective: as a whole, else the mean over domains."""
    first = {part: next((one for one in seen if one.part == part), None) for part in ("whole", "between", "risk")}
    alone = [one for one in seen if one.part == "alone"]
    whole = first["whole"] or (_joined(alone, first["between"]) if alone else first["risk"])
    assert whole is not None
    loss, domain_losses = whole.loss, whole.domain_losses
    parts = {"risk": loss.risk, "l2": loss.l2, **{n: term.value for n, term in loss.terms.items()}, "loss": loss.total}
    scalars = [*parts.values(), *domain_losses]
    # One transfer from the device for all of them, in their own type: not every device has float64.
    wide = torch.float64 if any(s.dtype == torch.float64 for s in scalars) else torch.float32
    values = torch.stack([s.detach().to(loss.total.device, wide) for s in scalars]).tolist()
    numbers = dict(zip(parts, values, strict=False))
    require_finite(step, numbers)
    terms = {name: TermRecord(numbers[name], float(term.weight)) for name, term in loss.terms.items()}
    return StepRecord(step, numbers["loss"], numbers["risk"], numbers["l2"], terms, tuple(values[len(parts) :]))


def require_finite(step: int, numbers: Mapping[str, float]) -> None:
    """Refuse a part of a step's loss that is infinite or not a number."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise NotFinite(step, name, value)


def _joined(alone: Sequence[Seen], between: Seen | None) -> Seen:
    """Return the mean of measurements of domains alone, with the penalties that compare them."""
    losses = [one.loss for one in alone]

    def mean(values: Iterable[Tensor]) -> Tensor:
        return torch.stack([value.detach() for value in values]).mean()

    loss = Loss(
        total=mean(loss.total for loss in losses),
        risk=mean(loss.risk for loss in losses),
        l2=mean(loss.l2 for loss in losses),
        terms={
            name: evolve(term, value=mean(loss.terms[name].value for loss in losses))
            for name, term in losses[0].terms.items()
        },
    )
    if between is not None:
        total = loss.total + between.loss.total.detach()
        loss = evolve(loss, total=total, terms=loss.terms | between.loss.terms)
    return Seen(loss, torch.stack([one.domain_losses for one in alone]).nanmean(0), "whole")
