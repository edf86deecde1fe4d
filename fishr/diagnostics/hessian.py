"""What every Hessian of a domain's risk can be asked, however it is held: in closed form, whole, or as products."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from attrs import evolve, frozen
from torch import Tensor


@frozen(eq=False)
class Estimate:
    """A number or vector with the error it may have.

    Args:
        value: without graph.
        route: how it was had.
        error: estimate of the absolute error; None if exact up to rounding.
        draws: [M, ...], the independent draws that ``value`` is the mean of; None if there are none.

    Example:
        >>> Estimate(torch.tensor(3.0), "whole matrix").error
    """

    value: Tensor
    route: str
    error: Tensor | None = None
    draws: Tensor | None = None


@frozen(eq=False, slots=False)
class Eigenpairs:
    """The largest eigenvalues, largest first, with their eigenvectors.

    Args:
        values: [k], loss/parameter².
        coordinates: [r, k], the eigenvectors in an orthonormal basis of a subspace that holds them.
        residuals: [k], ‖Hu − λu‖: an eigenvalue lies within this of each value.
        route: how they were had.
        lift: from coordinates to parameters, [r, k] to [P, k]; None where they are the same.

    Example:
        >>> Eigenpairs(torch.tensor([2.0]), torch.eye(3, 1), torch.zeros(1), "whole matrix").vectors.shape
        torch.Size([3, 1])
    """

    values: Tensor
    coordinates: Tensor
    residuals: Tensor
    route: str
    lift: Callable[[Tensor], Tensor] | None = None

    @cached_property
    def vectors(self) -> Tensor:
        """[P, k], orthonormal columns."""
        return self.coordinates if self.lift is None else self.lift(self.coordinates)

    def first(self, rank: int) -> "Eigenpairs":
        """The ``rank`` largest of them."""
        return evolve(
            self,
            values=self.values[:rank],
            coordinates=self.coordinates[:, :rank],
            residuals=self.residuals[:rank],
        )


class Hessian(Protocol):
    """A symmetric P×P matrix, loss/parameter², of which only what is asked for is computed.

    Example:
        >>> from fishr.diagnostics.dense_hessian import DenseHessian
        >>> matrix: Hessian = DenseHessian(torch.diag(torch.tensor([1.0, 3.0])))
        >>> matrix.trace().value
        tensor(4.)
    """

    @property
    def size(self) -> int:
        """P."""
        ...

    @property
    def like(self) -> Tensor:
        """A tensor of the type and device that it works in."""
        ...

    def apply(self, vectors: Tensor) -> Tensor:
        """H V for [P, M]."""
        ...

    def diagonal(self) -> Estimate:
        """[P]."""
        ...

    def trace(self) -> Estimate:
        """0-dim."""
        ...

    def squared_norm(self) -> Estimate:
        """‖H‖_F², 0-dim."""
        ...

    def product(self, other: Any) -> Estimate:
        """⟨H, H'⟩ with a Hessian that is held in the same way, 0-dim."""
        ...

    def top(self, rank: int) -> Eigenpairs:
        """The ``rank`` largest eigenvalues and their vectors; fewer if the matrix is smaller."""
        ...


def together(estimates: list[Estimate]) -> Estimate:
    """Estimates of equal shapes stacked, one a domain; those without error count as exact beside the others.

    Example:
        >>> both = together([Estimate(torch.tensor(1.0), "a"), Estimate(torch.tensor(2.0), "b", torch.tensor(0.1))])
        >>> both.value, both.error, both.route
        (tensor([1., 2.]), tensor([0.0000, 0.1000]), 'a; b')
    """
    value = torch.stack([each.value for each in estimates])
    route = "; ".join(dict.fromkeys(part for each in estimates for part in each.route.split("; ")))
    if all(each.error is None for each in estimates):
        return Estimate(value, route)
    zero = torch.zeros_like(estimates[0].value)
    error = torch.stack([zero if each.error is None else each.error for each in estimates])
    counts = [len(each.draws) for each in estimates if each.draws is not None]
    if not counts:
        return Estimate(value, route, error)
    repeated = [each.value.expand(counts[0], *zero.shape) if each.draws is None else each.draws for each in estimates]
    return Estimate(value, route, error, torch.stack(repeated, 1))
