"""The training loop: a generator of frozen events, resumable from any of them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.checks import returned
from fishr.data.domains import Domain, Domains
from fishr.errors import InputError
from fishr.mixed_samples import refuse_mixed_samples
from fishr.ranks import ALONE, Ranks
from fishr.training.compute import resolve_device
from fishr.training.evaluation import DomainScore, evaluate, evaluate_with_average
from fishr.training.experiment import Experiment
from fishr.training.model import Model, build_model
from fishr.training.prefetch import Prefetch
from fishr.training.state import TrainingState, first_state, state_to
from fishr.training.step import StepRecord, advance
from fishr.types import DomainBatch


@frozen(eq=False)
class Started:
    """Training begins or resumes: the first state, the experiment, and its data and modules on the device."""

    state: TrainingState
    experiment: Experiment
    domains: Domains
    model: Model  # may be used between two events; restore its modes


@frozen(eq=False)
class Stepped:
    """One update was made."""

    state: TrainingState  # after the update
    record: StepRecord  # at the weights before the update
    seconds: float | None = None  # of the update and of reading its batch; None outside a run folder


@frozen
class Evaluated:
    """The weights after ``step`` updates were evaluated."""

    step: int
    scores: tuple[DomainScore, ...]  # of each training domain, then of each evaluation domain


@frozen(eq=False)
class Finished:
    """All steps are made."""

    state: TrainingState
    scores: tuple[DomainScore, ...]  # of the last evaluation


Event = Started | Stepped | Evaluated | Finished
"""An event of a run, which ``train`` yields: ``Started``, ``Stepped``, ``Evaluated`` or ``Finished``."""


@frozen
class StepFunctions:
    """The functions that compute the steps and the scores of a run; a group of runs has its own."""

    advance: Callable[
        [Model, Experiment, TrainingState, "tuple[Domain, ...] | DomainBatch | Prefetch", Ranks],
        tuple[TrainingState, StepRecord],
    ] = field(factory=lambda: advance)
    evaluate: Callable[..., tuple[DomainScore, ...]] = field(factory=lambda: evaluate)


def train(
    experiment: Experiment,
    data_dir: Path | None = None,
    device: str = "cpu",
    state: TrainingState | None = None,
    domains: Domains | None = None,
    ranks: Ranks = ALONE,
    model: Model | None = None,
    by: StepFunctions | None = None,
) -> Iterator[Event]:
    """Run an experiment, as far as the events are consumed.

    On a CPU, training that resumes from the state of any ``Stepped`` is bit-identical to training that was not
    interrupted.

    Args:
        experiment: the run.
        data_dir: folder of data files, for data that has files.
        device: as for ``resolve_device``.
        state: where to resume; None begins.
        domains: the data, if it is built already.
        ranks: the processes that train together, each on its share of every batch. All of them call with the same
            arguments but for the device, and get the same events. Their number changes a run by rounding only, and by
            what random layers draw.
        model: the experiment's modules on the device, if they are built already.
        by: what computes steps and scores, if not ``advance`` and ``evaluate``.

    Yields:
        Started, then Stepped for each step, Evaluated every ``evaluate_every`` steps and after the last one,
        and Finished.

    Raises:
        InputError: a device that is absent, missing data, labels that the loss does not take, a state of another
            experiment; with several ranks, batch normalization by the statistics of a batch.
        RankLost: another rank is gone.
        NotFinite: a part of the loss is infinite or not a number.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> experiment = attrs.evolve(colored_digits(), steps=3, evaluate_every=2)
        >>> [type(event).__name__ for event in train(experiment)]
        ['Started', 'Stepped', 'Stepped', 'Evaluated', 'Stepped', 'Evaluated', 'Finished']
    """
    where, by = resolve_device(device), by or StepFunctions()
    domains = domains or returned("data", experiment.data(experiment.seed, data_dir), Domains)
    domains = domains.to(where)
    model = model or build_model(experiment, domains)
    # Batches are drawn from the samples that have a label.
    domains = domains.labeled(experiment.loss)
    check = getattr(experiment.average, "check", None)
    if check is not None:
        check(domains)
    if not ranks.alone:
        refuse_split_batch_norm(model)
        refuse_mixed_samples(model.featurizer, "ranks", "train on one rank")
    if state is None:
        state = first_state(experiment, model, len(domains.training))
    elif state.step > experiment.steps:
        raise InputError(f"state: got one after {state.step} steps, expected at most the {experiment.steps} of the run")
    else:
        state = state_to(state, where)
    yield Started(state, experiment, domains, model)

    source = batch_source(experiment, domains.training, ranks)
    # An evaluation belongs to the state it scores, so that a resumed run makes it where it is due.
    scores: tuple[DomainScore, ...] = ()
    while True:
        last = state.step == experiment.steps
        if experiment.evaluates(state.step):
            state, scores = evaluate_with_average(model, experiment, state, domains, ranks, by.evaluate)
            yield Evaluated(state.step, scores)
        if last:
            break
        state, record = by.advance(model, experiment, state, source, ranks)
        yield Stepped(state, record)
    yield Finished(state, scores)


def batch_source(
    experiment: Experiment, domains: tuple[Domain, ...], ranks: Ranks = ALONE
) -> tuple[Domain, ...] | DomainBatch | Prefetch:
    """Return the cheapest source of a run's batches: a fixed batch, batches read ahead from files, or the domains."""
    batches: Any = experiment.batches
    if experiment.transform is not None:
        # A rank takes its share of the transformed batch.
        ranks = ALONE
    if getattr(batches, "fixed", False):
        return batches.draw(domains, torch.Generator(), ranks)
    if not hasattr(batches, "begin") or all(isinstance(domain.inputs, Tensor) for domain in domains):
        return domains
    return Prefetch(batches, domains, ranks)


def refuse_split_batch_norm(model: Model) -> None:
    """Refuse batch normalization in train mode, which would normalize by each rank's samples alone."""
    for name, module in model.both().named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.training:  # pyright: ignore
            raise InputError(
                f"{name}: got batch normalization by the statistics of a batch, but each rank has only a part of it; "
                "freeze it, use group normalization, or train on one rank"
            )
