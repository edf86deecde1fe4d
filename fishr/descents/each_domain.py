"""The gradient of each domain alone, and the descents whose one update joins them."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from fishr.descents.descent import Descended, Gradients, Measured, NamedOptimizer, Weights
from fishr.errors import InputError

# By name, [K, ...]: one gradient a domain. None: the objective does not depend on the parameter.
Stacked = dict[str, Tensor | None]
Joined = tuple[dict[str, Tensor | None], Measured]


def at_most_one(record: object, attribute: object, value: float) -> None:
    """Refuse a threshold of agreement above 1."""
    if not value <= 1:
        raise InputError(f"tau: got {value}, expected at most 1, where all domains agree")


def of_each_domain(gradients: Gradients, weights: Weights) -> tuple[Stacked, Measured]:
    """Return the gradients of the domains in the batch, measured in their order, and the last measurement."""
    measured, found = None, list[dict[str, Tensor | None]]()
    for domain in gradients.domains:
        measured = gradients(weights, (domain,), measured)
        found.append(measured.gradients)
    assert measured is not None
    return stacked(found), measured


def stacked(found: list[dict[str, Tensor | None]]) -> Stacked:
    """Return the gradients of the domains by name, [K, ...]."""
    return {name: _stacked([one[name] for one in found]) for name in found[0]}


def _stacked(found: list[Tensor | None]) -> Tensor | None:
    given = next((gradient for gradient in found if gradient is not None), None)
    if given is None:
        return None
    return torch.stack([torch.zeros_like(given) if gradient is None else gradient for gradient in found])


def plus(left: dict[str, Tensor | None], right: dict[str, Tensor | None], factor: float) -> dict[str, Tensor | None]:
    """Return left + factor · right by name; None is 0."""

    def total(one: Tensor | None, other: Tensor | None) -> Tensor | None:
        if other is None:
            return one
        return factor * other if one is None else one + factor * other

    return {name: total(one, right[name]) for name, one in left.items()}


def inner_products(stacked: Stacked) -> Tensor:
    """Return the inner products of the domains' gradients by all parameters together, [K, K] in float64 on the CPU."""
    rows = [gradient.flatten(1) for gradient in stacked.values() if gradient is not None]
    return torch.stack([one @ one.T for one in rows]).sum(0).to("cpu", torch.float64)


class EachDomain:
    """The parts that descents share which measure domains one by one and have no state."""

    __slots__ = ()
    by_domain: ClassVar[bool] = True

    def init(self, weights: Weights) -> tuple[()]:
        """Return no state."""
        return ()


class OneUpdate(EachDomain, ABC):
    """The parts that descents share whose step is one update of the optimizer, of gradients of the domains."""

    __slots__ = ()

    def __call__(
        self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights, memory: object, state: tuple[()]
    ) -> Descended:
        """Return the outcome of one update by the joined gradients."""
        joined, measured = self.joined(gradients, optimizer, weights)
        joined, measured = gradients.compared(joined, weights, measured)
        moved, memory = optimizer.update(joined, memory, weights)
        return Descended(moved, memory, state, measured)

    @abstractmethod
    def joined(self, gradients: Gradients, optimizer: NamedOptimizer, weights: Weights) -> Joined:
        """Return the gradients of the update, without penalties that compare domains, and what was measured."""
