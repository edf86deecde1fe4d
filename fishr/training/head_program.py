"""The gradients of several heads at once: ``torch.func.vmap`` over the objective of one."""

from collections.abc import Iterable, Sequence
from copy import copy, deepcopy
from functools import partial
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torch._functorch.eager_transforms import enable_inplace_requires_grad
from torch.func import functional_call, vmap

from fishr.models.featurizers import FeatureDropout
from fishr.observation import observe
from fishr.penalties.combinators import Scaled, Total, weight_at
from fishr.penalties.schedules import Constant
from fishr.statistics.linear_head import has_bias
from fishr.tensor_trees import each_tensor, named_tensors
from fishr.training.experiment import Experiment
from fishr.training.model import Model
from fishr.training.objective import Objective
from fishr.training.step import StepRecord, TermRecord, require_finite
from fishr.types import DomainBatch


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
    records = (objective.risk, *(_inner(term) for term in objective.penalty.terms.values()))
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


def _inner(term: Any) -> Any:
    return term.penalty if isinstance(term, Scaled) else term


def _per_head(record: Any) -> tuple[str, ...]:
    return getattr(record, "per_head", ())


def outer_weights(objective: Objective, step: int) -> tuple[float, ...]:
    """Return the weights of the penalties that ``without_weights`` takes away."""
    terms = objective.penalty.terms.values()
    return tuple(1.0 if objective.rescale or not isinstance(t, Scaled) else t.schedule(step) for t in terms)


@frozen(eq=False)
class Gradients:
    """Of H heads at a step."""

    by_name: dict[str, Tensor | None]  # [H, ...] by parameter
    parts: list[list[float]]  # of each head: loss, risk, l2 and each penalty's weighted value
    domain_losses: list[list[float]]
    penalty: Any  # the objective's state, of tensors [H, ...]


class Program(nn.Module):
    """The objective of a model as a module, so that the parameters can be given in a call."""

    def __init__(self, model: Model, experiment: Experiment, zero: Sequence[bool]) -> None:
        super().__init__()
        # Dropout is applied to the batch of each head, by its own rate.
        dropout = isinstance(experiment.featurizer, FeatureDropout)
        self.featurizer = nn.Flatten() if dropout else model.featurizer
        self.head, self.experiment = deepcopy(model.head), experiment
        for layer in self.head.modules():
            if type(layer) is nn.Linear:
                layer.forward = partial(_linear, layer)
        self.objective = without_weights(experiment.objective, zero)
        self.tried = False

    def gradients(
        self,
        weights: dict[str, Tensor],
        batch: tuple[Tensor, Tensor, tuple[int, ...]],
        given: Tensor,
        state: Any,
        step: int,
    ) -> Gradients:
        """Return the gradients of heads with parameters [H, ...], on a batch of each, with weights and numbers."""
        *rows, sizes = batch
        tree = list[Any]()  # the next state, whose tensors are those of one head

        def losses(weights: dict[str, Tensor], inputs: Tensor, labels: Tensor, given: Tensor, *known: Tensor) -> Any:
            # Within vmap a tensor of several heads does not say that it has a graph, as trained parameters do.
            with enable_inplace_requires_grad(True):
                own = {name: weight.requires_grad_() for name, weight in weights.items()}
            arguments = (DomainBatch(inputs, labels, sizes), given, filled(state, known), step)
            total, parts, domain_losses, after = functional_call(self, own, arguments)
            tree.append(after)
            return total, parts, domain_losses, tensors_of(after)

        # Differentiated outside of vmap: one graph of the products of all heads, without second derivatives.
        leaf = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        total, parts, domain_losses, after = vmap(losses)(leaf, *rows, given, *tensors_of(state))
        found = torch.autograd.grad(total.sum(), tuple(leaf.values()), allow_unused=True)
        by_name: dict[str, Tensor | None] = dict(zip(leaf, found, strict=True))
        after = [tensor.detach() for tensor in after]
        return Gradients(by_name, parts.tolist(), domain_losses.tolist(), filled(tree[0], after))

    def forward(self, batch: DomainBatch, given: Tensor, state: Any, step: int) -> Any:
        """Return the loss, its parts, the domains' losses and the next state, of one head."""
        experiment = self.experiment
        # Without a seed: an objective that draws cannot be that of several heads.
        seen = observe(self.featurizer, self.head, batch, experiment.loss, experiment.route or "auto")
        inner = given[len(self.objective.penalty.terms) :]
        objective = with_numbers(self.objective, inner) if len(inner) else self.objective
        loss, after = objective.evaluate(seen, self.parameters(), state, step)
        terms = [given[index] * term.value for index, term in enumerate(loss.terms.values())]
        total = loss.total
        if not self.objective.rescale:
            total = loss.risk + loss.l2
            for term in terms:
                total = total + term
        return total, torch.stack([total, loss.risk, loss.l2, *terms]), seen.domain_losses, after


def _linear(layer: nn.Linear, input: Tensor) -> Tensor:
    # For several heads of few outputs W·zᵀ and its gradient are two to three times as fast as z·Wᵀ.
    products = (layer.weight @ input.mT).mT
    return products + layer.bias if has_bias(layer) else products


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
