"""The gradients of several heads at once: ``torch.func.vmap`` over the objective of one."""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch._functorch.eager_transforms import enable_inplace_requires_grad
from torch.func import functional_call, vmap

from fishr.matrix_products import matmul, multiplied
from fishr.models.featurizers import FeatureDropout
from fishr.observation import Observation
from fishr.penalties.combinators import Scaled, Total, weight_at
from fishr.penalties.schedules import Constant
from fishr.tensor_trees import each_tensor, named_tensors
from fishr.training.experiment import Experiment
from fishr.training.model import Model
from fishr.training.objective import Objective
from fishr.training.step import StepRecord, TermRecord, require_finite
from fishr.types import DomainBatch

_MOMENTS = {"cpu": 1 << 24, "cuda": 1 << 25}  # numbers, of all heads and domains, in one of a dozen tensors
# Numbers of one head, in all domains, from which on a CPU takes less time for each head alone, without storing moments.
_ALONE = 1 << 17


def without_weights(objective: Objective, zero: Sequence[bool] | None = None) -> Objective:
    """Return the objective with weights of 1 in place of its penalties' schedules, and of 0 where said."""
    # The divisor of a loss that is rescaled depends on the weights.
    if objective.rescale:
        return objective
    terms = objective.penalty.terms
    pairs = zip(terms.items(), zero or (False,) * len(terms), strict=True)
    chosen = {
        name: Scaled(term.penalty, Constant(0.0 if none else 1.0)) if isinstance(term, Scaled) else term
        for (name, term), none in pairs
    }
    return evolve(objective, penalty=Total(**chosen))


def numbers(objective: Objective) -> tuple[float, ...]:
    """Return the fields of risk and penalties, listed in ``per_head``, that heads of a program may differ in."""
    records = (objective.risk, *(inner(term) for term in objective.penalty.terms.values()))
    return tuple(getattr(record, name) for record in records for name in _per_head(record))


def with_numbers(objective: Objective, given: Iterable[Any]) -> Objective:
    """Return the objective with other numbers, or tensors, in the place of ``numbers``."""
    following = iter(given)

    def changed(record: Any) -> Any:
        made = copy(record)
        for name in _per_head(record):
            # Validators refuse tensors.
            object.__setattr__(made, name, next(following))
        return made

    risk = changed(objective.risk)
    terms = {
        name: evolve(term, penalty=changed(term.penalty)) if isinstance(term, Scaled) else changed(term)
        for name, term in objective.penalty.terms.items()
    }
    return evolve(objective, risk=risk, penalty=Total(**terms))


def inner(term: Any) -> Any:
    """Return the penalty of a term, without its schedule."""
    return term.penalty if isinstance(term, Scaled) else term


def _per_head(record: Any) -> tuple[str, ...]:
    return getattr(record, "per_head", ())


def outer_weights(objective: Objective, step: int) -> tuple[float, ...]:
    """Return the weights of the penalties that ``without_weights`` takes away."""
    terms = objective.penalty.terms.values()
    return tuple(1.0 if objective.rescale or not isinstance(t, Scaled) else t.schedule(step) for t in terms)


@frozen(eq=False)
class Batch:
    """A batch of each of H heads."""

    inputs: Tensor  # [H, N, ...]
    labels: Tensor
    sizes: tuple[int, ...]
    weights: Tensor | None  # [H, N], see ``Observation``

    def part(self, heads: slice) -> "Batch":
        """Return the batches of some heads."""
        weights = None if self.weights is None else self.weights[heads]
        return Batch(self.inputs[heads], self.labels[heads], self.sizes, weights)


@frozen(eq=False)
class Gradients:
    """Of H heads at a step."""

    by_name: dict[str, Tensor | None]  # [H, ...] by parameter
    parts: list[list[float]]  # of each head: loss, risk, l2 and each penalty's weighted value
    domain_losses: list[list[float]]
    penalty: Any  # the objective's state, of tensors [H, ...]


def joined(parts: Sequence[Gradients]) -> Gradients:
    """Return the gradients of the heads of several parts."""
    by_name: dict[str, Tensor | None] = {}
    for name in parts[0].by_name:
        slopes = [slope for part in parts if (slope := part.by_name[name]) is not None]
        by_name[name] = torch.cat(slopes) if slopes else None
    tensors = zip(*(tensors_of(part.penalty) for part in parts), strict=True)
    return Gradients(
        by_name,
        [each for part in parts for each in part.parts],
        [each for part in parts for each in part.domain_losses],
        filled(parts[0].penalty, [*map(torch.cat, tensors)]),
    )


class Program(nn.Module):
    """The objective of a model as a module, so that the parameters can be given in a call."""

    def __init__(self, model: Model, experiment: Experiment, zero: Sequence[bool]) -> None:
        super().__init__()
        # Dropout is applied to the batch of each head, by its own rate.
        dropout = isinstance(experiment.featurizer, FeatureDropout)
        self.featurizer = nn.Flatten() if dropout else model.featurizer
        self.head, self.experiment = multiplied(model.head, _linear), experiment
        self.objective = without_weights(experiment.objective, zero)
        self.tried, self.reads_moments = False, True

    def gradients(
        self,
        weights: dict[str, Tensor],
        batch: Batch,
        given: Tensor,
        state: Any,
        step: int,
    ) -> Gradients:
        """Return the gradients of heads with parameters [H, ...], on a batch of each, with weights and numbers."""
        heads, some = len(given), self._at_once(weights, batch)
        if some < heads:
            parts = [slice(first, first + some) for first in range(0, heads, some)]
            return joined([self.gradients(*of_some(part, weights, batch, given, state), step) for part in parts])
        tree = list[Any]()  # the next state, whose tensors are those of one head

        def losses(
            weights: dict[str, Tensor],
            inputs: Tensor,
            labels: Tensor,
            shares: Tensor | None,
            given: Tensor,
            *known: Tensor,
        ) -> Any:
            # Within vmap a tensor of several heads does not say that it has a graph, as trained parameters do.
            with enable_inplace_requires_grad(True):
                own = {name: weight.requires_grad_() for name, weight in weights.items()}
            arguments = (DomainBatch(inputs, labels, batch.sizes), shares, given, filled(state, known), step)
            total, parts, domain_losses, after = functional_call(self, own, arguments)
            tree.append(after)
            return total, parts, domain_losses, tensors_of(after)

        # Differentiated outside of vmap: one graph of the products of all heads, without second derivatives.
        leaf = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        tensors = (leaf, batch.inputs, batch.labels, batch.weights, given, *tensors_of(state))
        axes = tuple(None if each is None else 0 for each in tensors)
        total, parts, domain_losses, after = vmap(losses, axes)(*tensors)
        found = torch.autograd.grad(total.sum(), tuple(leaf.values()), allow_unused=True)
        by_name: dict[str, Tensor | None] = dict(zip(leaf, found, strict=True))
        after = [tensor.detach() for tensor in after]
        return Gradients(by_name, parts.tolist(), domain_losses.tolist(), filled(tree[0], after))

    def slower_than_alone(self, weights: dict[str, Tensor], batch: Batch) -> bool:
        """Return whether heads are too large for a group, because they read moments; known once the program ran."""
        return batch.inputs.device.type == "cpu" and self.reads_moments and _size(weights, batch) >= _ALONE

    def _at_once(self, weights: dict[str, Tensor], batch: Batch) -> int:
        """Return of how many heads moments are computed at once, which are much larger than all else."""
        if not self.reads_moments:
            return len(batch.inputs)
        return max(1, _MOMENTS.get(batch.inputs.device.type, _MOMENTS["cuda"]) // _size(weights, batch))

    def forward(self, batch: DomainBatch, weights: Tensor | None, given: Tensor, state: Any, step: int) -> Any:
        """Return the loss, its parts, the domains' losses and the next state, of one head."""
        experiment = self.experiment
        # Without a seed: an objective that draws cannot be that of several heads.
        route = experiment.route or "auto"
        seen = Observation(self.featurizer, self.head, batch, experiment.loss, route, weights=weights)
        own = given[len(self.objective.penalty.terms) :]
        objective = with_numbers(self.objective, own) if len(own) else self.objective
        loss, after = objective.evaluate(seen, self.parameters(), state, step)
        self.reads_moments = "moments" in vars(seen)
        terms = [given[index] * term.value for index, term in enumerate(loss.terms.values())]
        total = loss.total
        if not self.objective.rescale:
            total = loss.risk + loss.l2
            for term in terms:
                total = total + term
        return total, torch.stack([total, loss.risk, loss.l2, *terms]), seen.domain_losses, after


def of_some(
    heads: slice, weights: dict[str, Tensor], batch: Batch, given: Tensor, state: Any
) -> tuple[dict[str, Tensor], Batch, Tensor, Any]:
    """Return the arguments of ``Program.gradients`` of some heads."""
    own = {name: weight[heads] for name, weight in weights.items()}
    return own, batch.part(heads), given[heads], each_tensor(lambda tensor: tensor[heads], state)


def _size(weights: dict[str, Tensor], batch: Batch) -> int:
    return sum(weight[0].numel() for weight in weights.values()) * len(batch.sizes)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    # For several heads of few outputs W·zᵀ and its gradient are two to three times as fast as z·Wᵀ.
    products = matmul(weight, inputs.mT).mT
    return products if bias is None else products + bias


def step_record(
    objective: Objective, step: int, numbers: Sequence[float], losses: Sequence[float], rates: dict[str, float] | None
) -> StepRecord:
    """Return the record of one head, of its numbers in ``Gradients``."""
    total, risk, l2, *values = numbers
    terms = dict(zip(objective.penalty.terms, values, strict=True))
    require_finite(step, {"risk": risk, "l2": l2, **terms, "loss": total})
    weights = {name: weight_at(term, step) for name, term in objective.penalty.terms.items()}
    records = {name: TermRecord(value, weights[name]) for name, value in terms.items()}
    return StepRecord(step, total, risk, l2, records, tuple(losses), rates)


def tensors_of(tree: Any) -> tuple[Tensor, ...]:
    return tuple(tensor for _, tensor in named_tensors(tree))


def filled(tree: Any, tensors: Sequence[Tensor]) -> Any:
    """Return the tree with other tensors, in order."""
    following = iter(tensors)
    return each_tensor(lambda _: next(following), tree) if tensors else tree
