"""The training loop: a generator of frozen events, resumable from any of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from attrs import frozen
from torch import Tensor

from fishr.data.domains import Domain, Domains
from fishr.errors import InputError
from fishr.ranks import ALONE, Ranks
from fishr.training.checks import returned
from fishr.training.compute import resolve_device
from fishr.training.evaluation import DomainScore, evaluate
from fishr.training.experiment import Experiment
from fishr.training.model import Model
from fishr.training.prefetch import Prefetch
from fishr.training.state import TrainingState, build_model, first_state, state_to
from fishr.training.step import StepRecord, advance
from fishr.types import DomainBatch


@frozen(eq=False)
class Started:
    """Training begins, or goes on.

    Args:
        state: state that the first step starts from.
        experiment: the run.
        domains: its data, on the device of the run.
        model: the modules that the run computes with. Others may use them between two events, and restore their modes.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> next(train(colored_digits())).state.step
        0
    """

    state: TrainingState
    experiment: Experiment
    domains: Domains
    model: Model


@frozen(eq=False)
class Stepped:
    """One update was made.

    Args:
        state: after the update.
        record: numbers of the step, at the weights before the update.
        seconds: duration of the update with the reading of its batch; None outside a run folder.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> event = list(train(attrs.evolve(colored_digits(), steps=1)))[1]
        >>> event.state.step, event.record.step
        (1, 0)
    """

    state: TrainingState
    record: StepRecord
    seconds: float | None = None


@frozen
class Evaluated:
    """The weights were evaluated.

    Args:
        step: updates made before.
        scores: one for each training domain, then one for each evaluation domain.

    Example:
        >>> Evaluated(step=50, scores=()).step
        50
    """

    step: int
    scores: tuple[DomainScore, ...]


@frozen(eq=False)
class Finished:
    """All steps are made.

    Args:
        state: the last state.
        scores: of the last evaluation.

    Example:
        >>> import attrs
        >>> from fishr.protocols import colored_digits
        >>> list(train(attrs.evolve(colored_digits(), steps=1)))[-1].state.step
        1
    """

    state: TrainingState
    scores: tuple[DomainScore, ...]


Event = Started | Stepped | Evaluated | Finished


def train(
    experiment: Experiment,
    data_dir: Path | None = None,
    device: str = "cpu",
    state: TrainingState | None = None,
    domains: Domains | None = None,
    ranks: Ranks = ALONE,
    model: Model | None = None,
) -> Iterator[Event]:
    """Run an experiment, as far as the events are consumed.

    The events that follow a state depend on the state alone: on a CPU, training that goes on from the state of any
    ``Stepped`` is bit-identical to training that was not interrupted.

    Args:
        experiment: the run.
        data_dir: folder of data files, for data that has files.
        device: as for ``resolve_device``.
        state: where to go on from; None begins.
        domains: the data, if it is built already.
        ranks: the processes that train together, each on its share of every batch. All of them call with the same
            arguments but for the device, and get the same events. Their number changes a run by rounding only, and by
            what random layers draw.
        model: the experiment's modules on the device, if they are built already.

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
    where = resolve_device(device)
    domains = domains or returned("data", experiment.data(experiment.seed, data_dir), Domains)
    domains = domains.to(where)
    model = model or build_model(experiment, domains)
    if not ranks.alone:
        refuse_split_batch_norm(model)
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
            scores = evaluate(model, experiment, state, domains, ranks=ranks)
            yield Evaluated(state.step, scores)
        if last:
            break
        state, record = advance(model, experiment, state, source, ranks)
        yield Stepped(state, record)
    yield Finished(state, scores)


def batch_source(
    experiment: Experiment, domains: tuple[Domain, ...], ranks: Ranks = ALONE
) -> tuple[Domain, ...] | DomainBatch | Prefetch:
    """Return the cheapest source of a run's batches: a fixed batch, batches read ahead from files, or the domains."""
    batches: Any = experiment.batches
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
                f"{name}: got batch normalization by the statistics of a batch, of which each rank has a part alone; "
                "freeze it, use group normalization, or train on one rank"
            )
