"""One run of a group of heads, the states of several as one tree, and their updates."""

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from fishr.data.batches import Minibatch
from fishr.data.shared_rows import rows_of
from fishr.models.featurizers import FeatureDropout, dropout_factors
from fishr.seeding import seeded
from fishr.tensor_trees import leaves
from fishr.training.compute import Compute
from fishr.training.evaluation import DomainScore
from fishr.training.experiment import MODEL, Experiment
from fishr.training.head_program import (
    Gradients,
    filled,
    numbers,
    outer_weights,
    tensors_of,
    with_numbers,
    without_weights,
)
from fishr.training.learning_rates import StepOptimizer
from fishr.training.loop import Started
from fishr.training.optimizers import Adam, AdamW
from fishr.training.sgd import SGD
from fishr.training.state import TrainingState
from fishr.training.step import NotFinite, StepRecord
from fishr.transforms.mixup import Mixup
from fishr.types import HEAD


def shared_settings(experiment: Experiment) -> Experiment | None:
    """Return the settings that the runs of a group have in common; None for a run that trains alone."""
    optimizer, transform, objective = experiment.optimizer, experiment.transform, without_weights(experiment.objective)
    alone = (
        experiment.descent is not None,
        experiment.clip_norm is not None,
        experiment.lr_factors is not None,
        experiment.passes is not None,
        experiment.layers != HEAD,
        experiment.compute != Compute(),
        type(experiment.batches) is not Minibatch,
        type(optimizer) not in (Adam, AdamW, SGD),
        # It runs the batch through other weights.
        hasattr(experiment.average, "passed"),
    )
    if any(alone):
        return None
    return evolve(
        experiment,
        name="group",
        seed=0,
        data=None,
        featurizer=FeatureDropout() if isinstance(experiment.featurizer, FeatureDropout) else experiment.featurizer,
        objective=evolve(with_numbers(objective, [1.0] * len(numbers(objective))), fresh_optimizer_at=None),
        optimizer=evolve(optimizer, lr=1.0, weight_decay=0.0),
        transform=Mixup() if isinstance(transform, Mixup) else transform,
        average=None,
        checkpoint_every=1,
    )


@define(eq=False)
class Member:
    """One run of a group."""

    started: Started
    state: TrainingState  # the last one that is known
    # Rows of the table and labels of all training samples, on the CPU, where batches are drawn.
    rows: Tensor
    labels: Tensor
    counts: list[int]  # samples of each training domain
    optimizer: str
    generator: torch.Generator = field(factory=torch.Generator)
    _noise: torch.Generator = field(factory=torch.Generator)
    made: "tuple[TrainingState, StepRecord] | NotFinite | None" = None  # from ``state``
    scores: tuple[DomainScore, ...] | None = None  # of ``state``

    @classmethod
    def of(cls, started: Started) -> "Member":
        domains = started.domains.training
        rows = torch.cat([rows_of(domain).rows for domain in domains]).cpu()
        labels = torch.cat([domain.labels for domain in domains]).cpu()
        counts = [len(domain.labels) for domain in domains]
        return cls(started, started.state, rows, labels, counts, repr(started.experiment.optimizer))

    @property
    def experiment(self) -> Experiment:
        return self.started.experiment

    def zero(self) -> tuple[bool, ...]:
        """Return which weights of penalties are 0 in the next step."""
        return tuple(weight == 0 for weight in outer_weights(self.experiment.objective, self.state.step))

    def rest(self) -> Hashable:
        """Return the step and all of the penalties' state but its tensors."""
        found = ((path, leaf) for path, leaf in leaves(self.state.penalty) if not isinstance(leaf, Tensor))
        return self.state.step, tuple(found)

    def update(self) -> Hashable:
        """Return what heads have in common that one optimizer updates."""
        experiment, state = self.experiment, self.state
        rates = tuple(experiment.learning_rates(state.step).items())
        return self.optimizer, rates, StepOptimizer(experiment, state.step).fresh, state.optimizer.steps

    def draw(self) -> tuple[Tensor, tuple[int, ...]]:
        """Return the samples of the next batch and their number in each domain; the generator advances."""
        batches: Any = self.experiment.batches
        self.generator.set_state(self.state.generator)
        drawn, start = batches.indices(self.counts, self.generator), 0
        for indices, count in zip(drawn, self.counts, strict=True):
            indices += start
            start += count
        return torch.cat(drawn), tuple(map(len, drawn))

    @property
    def dropout(self) -> float:
        """Return the rate of dropout of features."""
        featurizer = self.experiment.featurizer
        return featurizer.rate if isinstance(featurizer, FeatureDropout) else 0.0

    def drop(self, inputs: Tensor, seed: int) -> None:
        """Apply dropout of features in place, with the draws of a step's seed."""
        if self.dropout and inputs.device.type == "cpu":
            inputs *= dropout_factors(inputs, self.dropout, self._noise.manual_seed(seed))
        elif self.dropout:
            with seeded(seed, inputs.device):
                inputs.copy_(self.started.model.featurizer(inputs).view_as(inputs))


@frozen(eq=False)
class Stack:
    """Weights and states of some heads as trees of tensors [H, ...], so that the next step need not join them again."""

    heads: tuple[Member, ...]
    step: int
    weights: dict[str, Tensor]
    moments: dict[str, tuple[Tensor, ...]]
    penalty: Any

    @classmethod
    def of(cls, heads: tuple[Member, ...]) -> "Stack":
        states = [head.state for head in heads]
        weights = {name: torch.stack([s.parameters[name] for s in states]) for name in states[0].parameters}
        moments = {
            name: tuple(torch.stack(each) for each in zip(*(s.optimizer.moments[name] for s in states), strict=True))
            for name in states[0].optimizer.moments
        }
        tensors = zip(*(tensors_of(state.penalty) for state in states), strict=True)
        return cls(heads, states[0].step, weights, moments, filled(states[0].penalty, [*map(torch.stack, tensors)]))


@frozen(eq=False)
class Updated:
    """Weights and states of the optimizers after an update of some heads, with the learning rates that changed."""

    weights: dict[str, Tensor]  # [H, ...]
    moments: dict[str, tuple[Tensor, ...]]
    steps: list[tuple[int, ...]]  # of each head
    rates: list[dict[str, float] | None]


@torch.no_grad()
def updated(heads: Sequence[Member], gradients: Gradients, stack: Stack) -> Updated:
    """Return the update of all heads; those of one optimizer that follow each other are updated in one call."""
    weights = {name: weight.clone() for name, weight in stack.weights.items()}
    moments = {name: tuple(moment.clone() for moment in each) for name, each in stack.moments.items()}
    slopes = [
        (index, slope.contiguous()) for index, slope in enumerate(gradients.by_name.values()) if slope is not None
    ]
    after, start, kinds = Updated(weights, moments, [], []), 0, [head.update() for head in heads]
    while start < len(heads):
        stop = next((h for h in range(start, len(heads)) if kinds[h] != kinds[start]), len(heads))
        part, first = slice(start, stop), heads[start]
        step = StepOptimizer(first.experiment, stack.step)
        # At a rate of 0 the optimizer's state goes on as at any other.
        rate = first.experiment.learning_rates(stack.step).get(MODEL)
        optimizer: Any = evolve(first.experiment.optimizer, fused=True, **({"lr": rate} if rate else {}))
        counts = list(first.state.optimizer.steps)
        if step.fresh:
            counts = [0] * len(counts)
            for moment in chain.from_iterable(moments.values()):
                moment[part] = 0
        targets = [*weights.values()] if rate != 0 else [weight.clone() for weight in weights.values()]
        # Head by head: a bit of a long tensor depends on its place, and short ones stay in the cache.
        own = [index for index, _ in slopes for _ in heads[part]]
        optimizer.in_place(
            [weight for index, _ in slopes for weight in targets[index][part].unbind()],
            [slope for _, whole in slopes for slope in whole[part].unbind()],
            {name: [m for index, _ in slopes for m in each[index][part].unbind()] for name, each in moments.items()},
            [counts[index] for index in own],
        )
        for index, _ in slopes:
            counts[index] += 1
        after.steps.extend([tuple(counts)] * (stop - start))
        after.rates.extend([step.changed_rates] * (stop - start))
        start = stop
    return after


def of_heads(tree: Any, heads: int) -> list[Any]:
    """Return the tree of each head, of a tree of tensors [H, ...]."""
    each = [tensor.unbind() for tensor in tensors_of(tree)]
    return [filled(tree, own) for own in zip(*each, strict=True)] if each else [tree] * heads


def weights_of_heads(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the weights of each head by name."""
    each = zip(*(weight.unbind() for weight in weights.values()), strict=True)
    return [dict(zip(weights, own, strict=True)) for own in each]


def moments_of_heads(moments: dict[str, tuple[Tensor, ...]], heads: int) -> list[dict[str, tuple[Tensor, ...]]]:
    """Return the optimizer's moments of each head by name."""
    each = {name: list(zip(*(part.unbind() for part in parts), strict=True)) for name, parts in moments.items()}
    return [{name: own[h] for name, own in each.items()} for h in range(heads)]
