"""A method of tables: its hyper-parameters, and the parts of an experiment that they give."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from attrs import evolve, field, frozen
from torch import Tensor

from fishr.errors import InputError
from fishr.methods.ranges import Range
from fishr.models.featurizers import Featurizer
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total
from fishr.penalties.penalty import Penalty, least_domains
from fishr.penalties.schedules import StepSchedule
from fishr.statistics.linear_heads import is_plain_linear
from fishr.statistics.pure_forward import twin
from fishr.statistics.twice_differentiable import double_backward_kernels
from fishr.training.objective import Objective

Hparams = Mapping[str, Any]


@frozen
class Method:
    """A method: hyper-parameters beside those that all methods share, and what they make of ERM's experiment.

    Args:
        ranges: its hyper-parameters by name.
        objective: hyper-parameters to the objective.
        changes: hyper-parameters to other fields of the experiment that it changes, such as ``lr_schedule``.
        ranges_of: data set to the ranges that differ on it.
        featurizer: the experiment's featurizer and hyper-parameters to its own, for a method that wraps the network.
        passes: "domain" where DomainBed passes each domain through the network alone, see ``Experiment``; jobs set it
            where batch normalization is trained.

    Example:
        >>> METHOD = Method({"reg": Range(0.1, lambda generator: 10 ** generator.uniform(-5, -1))})
        >>> METHOD.ranges_on("PACS")["reg"].default, METHOD.objective_for({"reg": 0.1}, domains=3).penalty.terms
        (0.1, {})
    """

    ranges: Mapping[str, Range] = field(factory=dict[str, Range])
    objective: Callable[[Hparams], Objective] = lambda hparams: Objective()
    changes: Callable[[Hparams], dict[str, Any]] = lambda hparams: {}
    ranges_of: Callable[[str], Mapping[str, Range]] = lambda dataset: {}
    featurizer: Callable[[Featurizer, Hparams], Featurizer] = lambda featurizer, hparams: featurizer
    passes: Literal["domain"] | None = None

    def ranges_on(self, dataset: str) -> dict[str, Range]:
        """Return its hyper-parameters on a data set."""
        return {**self.ranges, **self.ranges_of(dataset)}

    def objective_for(self, hparams: Hparams, domains: int) -> Objective:
        """Return the objective on a number of training domains, without penalties that compare more domains."""
        made = self.objective(hparams)
        terms = {name: term for name, term in made.penalty.terms.items() if domains >= least_domains(term)}
        return evolve(made, penalty=Total(**terms))


def after_warm_up(name: str, penalty: Penalty, at: int, after: float, before: float = 0.0) -> Objective:
    """Return the mean risk of the domains and a penalty whose weight jumps at a step, with a fresh optimizer there."""
    # DomainBed drops the optimizer's memory when the weight jumps.
    schedule = StepSchedule(at=at, before=before, after=after)
    return Objective(penalty=Total(**{name: Scaled(penalty, schedule)}), fresh_optimizer_at=at)


def require_samples(seen: Observation, name: str, least: int) -> None:
    """Refuse a batch with fewer samples of a domain than a statistic of each domain needs."""
    if min(seen.sizes) < least:
        raise InputError(
            f"{name}: got domains of {seen.sizes} samples, expected at least {least} in each; draw more samples of each"
        )


def require_classes(seen: Observation, name: str) -> None:
    """Refuse labels that are not one class index a sample."""
    labels = seen.labels
    if labels.ndim != 1 or labels.is_floating_point() or seen.logits.shape[1] < 2:
        raise InputError(
            f"{name}: got labels of shape {tuple(labels.shape)} and type {labels.dtype} for {seen.logits.shape[1]} "
            "outputs, expected class indices [N] and at least two outputs; use CrossEntropy() and one output a class"
        )


def head_logits(seen: Observation, features: Tensor) -> Tensor:
    """Return the head's logits of other features, without moving its buffers."""
    head = seen.head if is_plain_linear(seen.head) else twin(seen.head)
    with double_backward_kernels(head):
        return head(features.clone())
