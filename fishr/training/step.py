"""One update of everything: a pure function of the training state."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from attrs import asdict, evolve, frozen
from torch import Tensor

from fishr.checks import returned
from fishr.data.batches import share_of
from fishr.data.domains import Domain
from fishr.errors import RunFailed
from fishr.observation import observe
from fishr.ranks import ALONE, Ranks, mean_over_ranks
from fishr.seeding import named_generator, seeded
from fishr.tensor_trees import require_tree
from fishr.training.compute import LEAST, Compute, GradientScale, products
from fishr.training.experiment import Experiment
from fishr.training.learning_rates import changed_rates, first_memory, update_layers
from fishr.training.model import Model, place
from fishr.training.objective import Loss
from fishr.training.optimizers import Gradients, clipped
from fishr.training.prefetch import Prefetch, step_seed
from fishr.training.state import TrainingState, moving_weights
from fishr.types import HEAD, DomainBatch


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
    entry = asdict(record) | {"domain_losses": {name: loss for name, loss in losses if not math.isnan(loss)}}
    return {name: value for name, value in entry.items() if value is not None}


class NotFinite(RunFailed):
    """A part of the loss, or a parameter, is infinite or not a number."""

    def __init__(self, step: int, term: str, value: float) -> None:
        super().__init__(f"step {step}: {term} is {value}, expected a finite number; try a smaller learning rate")
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
        ranks: the processes that share the batch; a batch that is given is this one's part, or
            with a transform all of it. All of them call with
            the same state, and get the same.

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
    # Samples of different ranks may be mixed, so that each draws the whole batch.
    drawing = ranks if experiment.transform is None else ALONE
    match source:
        case DomainBatch():
            batch = source
        case Prefetch():
            batch = source(generator)
        case _:
            batch = returned("batches", experiment.batches.draw(source, generator, drawing), DomainBatch)
    step_wide = step_seed(generator)
    if experiment.transform is not None:
        transformed = experiment.transform(batch, named_generator(step_wide, "transform"), model.outputs)
        batch = share_of(returned("transform", transformed, DomainBatch), ranks)
    # Of another stream on each rank, so that their random layers differ.
    seed = step_wide + (ranks.number << 20)

    place(model, state.parameters, state.buffers)
    trainable = {name: p for name, p in model.parameters().items() if p.requires_grad}
    parameters = tuple(trainable.values())
    inputs = returned("inputs of batches", batch.inputs, Tensor)
    with seeded(seed, inputs.device):
        # Moments of the featurizer's layers read the inputs again, which its forward pass may overwrite.
        inputs = inputs if experiment.layers == HEAD else inputs.clone()
        features, vjp = featurize(model, experiment.compute, inputs, parameters, seed)
        route, layers = experiment.moments_route, experiment.layers
        seen = observe(model.featurizer, model.head, batch, experiment.loss, route, ranks, features, layers, step_wide)
        with products("ieee"):
            # The head's forward pass, once for all that reads its logits.
            _ = seen.logits
            loss, penalty = experiment.objective.evaluate(seen, parameters, state.penalty, state.step)
            wanted = (*parameters, features) if features.requires_grad else parameters
            gradients = cast(Gradients, torch.autograd.grad(loss.total, wanted, allow_unused=True))
        if features.requires_grad:
            *gradients, by_features = gradients
            if by_features is not None:
                gradients = _added(gradients, vjp(by_features, 1.0 if state.scale is None else state.scale.value))
    domain_losses = seen.domain_losses.detach()
    if seen.domains < batch.domains:
        rows = torch.tensor(seen.present, device=domain_losses.device)
        domain_losses = domain_losses.new_full((batch.domains,), math.nan).index_copy(0, rows, domain_losses)
    # The optimizer needs the memory.
    del seen, features, vjp

    gradients = mean_over_ranks(tuple(gradients), ranks)
    usable = None if state.scale is None else _all_finite(gradients)
    if experiment.clip_norm is not None:
        gradients = clipped(gradients, experiment.clip_norm)
    # Reading the numbers waits for the device, so it comes after all of its work is queued.
    record = evolve(_record(state.step, loss, domain_losses), lr=changed_rates(experiment, state.step))
    require_tree(penalty, "penalty state")

    weights, memory = {name: state.parameters[name] for name in trainable}, state.optimizer
    if experiment.objective.fresh_optimizer(state.step):
        memory = first_memory(experiment, weights)
    if usable is None or usable:
        by_name = dict(zip(weights, gradients, strict=True))
        weights, memory = update_layers(experiment, by_name, memory, weights, state.step)
    parameters = state.parameters | weights
    buffers = {name: buffer.detach().clone() for name, buffer in model.buffers().items()}
    average = state.average
    if experiment.average is not None:
        average = experiment.average.update(moving_weights(model, parameters, buffers), average, state.step + 1)
        require_tree(average, "average state")
    after = TrainingState(
        step=state.step + 1,
        parameters=parameters,
        buffers=buffers,
        optimizer=memory,
        penalty=penalty,
        generator=generator.get_state(),
        scale=None if state.scale is None else _next_scale(state.scale, bool(usable), state.step),
        average=average,
    )
    return after, record


Vjp = Callable[[Tensor, float], Gradients]


def featurize(
    model: Model, compute: Compute, inputs: Tensor, parameters: tuple[Tensor, ...], seed: int
) -> tuple[Tensor, Vjp]:
    """Return a batch's features, a leaf of the graph, and their vjp by the parameters, to be called once."""
    if compute.channels_last and inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    featurizer = model.compiled or model.featurizer

    def forward(part: Tensor) -> Tensor:
        with compute.products(), compute.autocast(part.device):
            return featurizer(part)

    def vjp(features: Tensor, gradient: Tensor, scale: float) -> Gradients:
        if not features.requires_grad:
            return (None,) * len(parameters)
        scaled = gradient if scale == 1 else gradient * scale
        with compute.products():
            grad = torch.autograd.grad(features, parameters, scaled.to(features.dtype), allow_unused=True)
        found = cast(Gradients, grad)
        return found if scale == 1 else tuple(None if g is None else g / scale for g in found)

    parts = inputs.tensor_split(min(compute.micro_batches, len(inputs)))
    if len(parts) == 1:
        features = forward(inputs)
        return _leaf(features.detach(), features.requires_grad), partial(vjp, features)

    with torch.no_grad():
        found = list[Tensor]()
        for index, part in enumerate(parts):
            with seeded(seed + 1 + index, part.device):
                # A copy, because the featurizer may work in place, and the second pass reads the part again.
                found.append(forward(part.clone()))
    kept = [buffer.detach().clone() for buffer in model.featurizer.buffers()]

    def vjp_of_parts(gradient: Tensor, scale: float) -> Gradients:
        total: Gradients = (None,) * len(parameters)
        for index, (part, of_part) in enumerate(zip(parts, gradient.split([len(p) for p in parts]), strict=True)):
            with seeded(seed + 1 + index, part.device):
                features = forward(part)
            total = _added(total, vjp(features, of_part, scale))
        for buffer, before in zip(model.featurizer.buffers(), kept, strict=True):
            buffer.data = before
        return total

    return _leaf(torch.cat(found), any(p.requires_grad for p in model.featurizer.parameters())), vjp_of_parts


def _leaf(features: Tensor, trained: bool) -> Tensor:
    if not features.is_floating_point():
        return features
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.requires_grad_(trained)


def _added(left: Sequence[Tensor | None], right: Gradients) -> Gradients:
    return tuple(b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True))


def _all_finite(gradients: Gradients) -> Tensor:
    return torch.stack([g.isfinite().all() for g in gradients if g is not None]).all()


def _next_scale(scale: GradientScale, finite: bool, step: int) -> GradientScale:
    after = scale.after(finite)
    if after.value < LEAST:
        raise NotFinite(step, "gradient", float("inf"))
    return after


def _record(step: int, loss: Loss, domain_losses: Tensor) -> StepRecord:
    parts = {"risk": loss.risk, "l2": loss.l2, **{n: term.value for n, term in loss.terms.items()}, "loss": loss.total}
    scalars = [*parts.values(), *domain_losses]
    # One transfer from the device for all of them, in their own type: not every device has float64.
    wide = torch.float64 if any(s.dtype == torch.float64 for s in scalars) else torch.float32
    values = torch.stack([s.detach().to(loss.total.device, wide) for s in scalars]).tolist()
    numbers = dict(zip(parts, values, strict=False))
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise NotFinite(step, name, value)
    terms = {name: TermRecord(numbers[name], float(term.weight)) for name, term in loss.terms.items()}
    return StepRecord(step, numbers["loss"], numbers["risk"], numbers["l2"], terms, tuple(values[len(parts) :]))
