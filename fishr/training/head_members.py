"""One run of a group of heads, the states of several as one tree, and their batches."""

from collections.abc import Hashable, Sequence
from math import ceil
from typing import Any

import torch
from attrs import define, evolve, field, frozen
from torch import Tensor

from fishr.data.batches import Minibatch
from fishr.data.shared_rows import rows_of
from fishr.models.featurizers import FeatureDropout, dropout_factors
from fishr.models.heads import LinearHead, MLPHead
from fishr.tensor_trees import leaves
from fishr.training.compute import Compute
from fishr.training.evaluation import DomainScore
from fishr.training.experiment import Experiment
from fishr.training.head_program import (
    filled,
    inner,
    numbers,
    outer_weights,
    tensors_of,
    with_numbers,
    without_weights,
)
from fishr.training.loop import Started
from fishr.training.optimizers import Adam, AdamW
from fishr.training.prefetch import step_seed
from fishr.training.sgd import SGD
from fishr.training.state import TrainingState
from fishr.training.step import NotFinite, StepRecord
from fishr.transforms.mixup import Mixup
from fishr.types import HEAD

_STEP = 8  # batches are filled to a multiple of it


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
        batches=evolve(experiment.batches, size=_most(experiment)),
        transform=Mixup() if isinstance(transform, Mixup) else transform,
        average=None,
        checkpoint_every=1,
    )


def _most(experiment: Experiment) -> int:
    """Return the size of a domain in a batch, with samples of weight 0 where the objective takes weights."""
    batches: Any = experiment.batches
    objective = experiment.objective
    records = [objective.risk, *(inner(term) for term in objective.penalty.terms.values())]
    weighted = all(getattr(record, "takes_weights", False) for record in records) and experiment.transform is None
    if not weighted or type(experiment.head) not in (LinearHead, MLPHead) or batches.size == 1:
        return batches.size
    # Not that of the largest head of a group, which may differ when a sweep is resumed.
    return ceil(batches.size / _STEP) * _STEP


@define(eq=False)
class Member:
    """One run of a group."""

    started: Started
    state: TrainingState  # the last one that is known
    # Rows of the table and labels of all training samples, on the CPU, where batches are drawn.
    rows: Tensor
    labels: Tensor
    counts: list[int]  # samples of each training domain
    generator: torch.Generator = field(factory=torch.Generator)
    made: "tuple[TrainingState, StepRecord] | NotFinite | None" = None  # from ``state``
    scores: tuple[DomainScore, ...] | None = None  # of ``state``

    @classmethod
    def of(cls, started: Started) -> "Member":
        domains = started.domains.training
        rows = torch.cat([rows_of(domain).rows for domain in domains]).cpu()
        labels = torch.cat([domain.labels for domain in domains]).cpu()
        counts = [len(domain.labels) for domain in domains]
        return cls(started, started.state, rows, labels, counts)

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

    def draw(self) -> list[Tensor]:
        """Return the samples of the next batch, of each domain; the generator advances."""
        batches: Any = self.experiment.batches
        self.generator.set_state(self.state.generator)
        return batches.indices(self.counts, self.generator)

    @property
    def size(self) -> int:
        """Return the samples of each domain in a batch."""
        batches: Any = self.experiment.batches
        return batches.size

    @property
    def dropout(self) -> float:
        """Return the rate of dropout of features."""
        featurizer = self.experiment.featurizer
        return featurizer.rate if isinstance(featurizer, FeatureDropout) else 0.0


@frozen(eq=False)
class Samples:
    """The training samples of some heads, one head after the other, and how a batch of each is drawn."""

    heads: tuple[Member, ...]
    table: Tensor
    rows: Tensor  # of the table
    labels: Tensor
    starts: Tensor  # the first sample of each drawn one's domain, on the CPU
    sizes: tuple[int, ...]  # of the domains in a batch, those of the head with the most
    places: Tensor | None  # of the drawn samples in batches [H · N], on the CPU; None: heads draw as many
    weights: Tensor | None  # [H, N] of samples in means, 0 of those that fill a batch

    @classmethod
    def of(cls, heads: tuple[Member, ...]) -> "Samples":
        table, first = rows_of(heads[0].started.domains.training[0]).table, 0
        most = _most(heads[0].experiment)
        starts, places, weights = list[Tensor](), list[Tensor](), list[Tensor]()
        for h, head in enumerate(heads):
            domains, size = len(head.counts), head.size
            for k, samples in enumerate(head.counts):
                starts.append(torch.full((size,), first))
                places.append(torch.arange(size) + (h * domains + k) * most)
                first += samples
            real = torch.arange(most) < size
            weights.append((real * (most / size)).repeat(domains))
        padded = any(head.size != most for head in heads)
        return cls(
            heads,
            table,
            torch.cat([head.rows for head in heads]).to(table.device),
            torch.cat([head.labels for head in heads]).to(table.device),
            torch.cat(starts),
            (most,) * len(heads[0].counts),
            torch.cat(places) if padded else None,
            torch.stack(weights).to(table.device) if padded else None,
        )

    def batches(self) -> tuple[Tensor, Tensor, list[int]]:
        """Return inputs [H, N, ...] and labels of a batch of each head, and the seeds of their steps."""
        heads, drawn, seeds = self.heads, list[Tensor](), list[int]()
        for head in heads:
            drawn += head.draw()
            seeds.append(step_seed(head.generator))
        chosen = torch.cat(drawn).add_(self.starts)
        if self.places is not None:
            chosen = chosen.new_zeros(len(heads) * sum(self.sizes)).index_copy_(0, self.places, chosen)
        chosen = chosen.to(self.table.device)
        inputs = self.table.index_select(0, self.rows[chosen]).unflatten(0, (len(heads), -1))
        return inputs, self.labels[chosen].unflatten(0, (len(heads), -1)), seeds

    def drop(self, inputs: Tensor, seeds: Sequence[int]) -> None:
        """Apply dropout of features in place, with the draws of a step's seed of each head."""
        heads, noise = self.heads, torch.Generator(inputs.device)
        # On a CPU head by head, which its cache holds.
        alone = inputs.device.type == "cpu" or self.places is not None
        parts = [slice(h, h + 1) for h in range(len(heads))] if alone else [slice(0, len(heads))]
        for part in parts:
            rates = [head.dropout for head in heads[part]]
            if any(rates):
                generators = (noise.manual_seed(seed) for seed in seeds[part])
                own = inputs[part].unflatten(1, (len(self.sizes), -1))[:, :, : heads[part][0].size]
                own *= dropout_factors(own, rates, generators)


@frozen(eq=False)
class Stack:
    """Weights and states of some heads as trees of tensors [H, ...], so that the next step need not join them again."""

    heads: tuple[Member, ...]
    step: int
    weights: dict[str, Tensor]
    moments: dict[str, tuple[Tensor, ...]]
    penalty: Any
    samples: Samples

    @classmethod
    def of(cls, heads: tuple[Member, ...]) -> "Stack":
        states = [head.state for head in heads]
        weights = {name: torch.stack([s.parameters[name] for s in states]) for name in states[0].parameters}
        moments = {
            name: tuple(torch.stack(each) for each in zip(*(s.optimizer.moments[name] for s in states), strict=True))
            for name in states[0].optimizer.moments
        }
        tensors = zip(*(tensors_of(state.penalty) for state in states), strict=True)
        penalty = filled(states[0].penalty, [*map(torch.stack, tensors)])
        return cls(heads, states[0].step, weights, moments, penalty, Samples.of(heads))


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
