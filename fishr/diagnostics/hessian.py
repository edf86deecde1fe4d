"""The Hessian of a domain's risk: what every form of it answers, and the form held whole by ``torch.func``."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fishr.diagnostics.uncertainty import Estimate
from fishr.losses import Loss, per_sample_losses
from fishr.statistics.pure_forward import pure_forward
from fishr.statistics.twice_differentiable import has_recurrence
from fishr.types import Layout

_WHOLE = "whole matrix"
# Parameters up to which a Hessian is held whole: 32 MiB in float64, and one backward pass for each.
WHOLE_LIMIT = 2048
# Rows of it that are computed in one backward pass, and elements of the features times rows.
_ROWS, _ELEMENTS = 64, 1 << 22


@frozen(eq=False, slots=False)
class Eigenpairs:
    """The largest eigenvalues, largest first, with their eigenvectors.

    Args:
        values: [k], loss/parameter².
        coordinates: [r, k], the eigenvectors in an orthonormal basis of a subspace that holds them.
        residuals: [k], ‖Hu − λu‖: an eigenvalue is within this of each value.
        route: how they were computed.
        lift: from coordinates to parameters, [r, k] to [P, k]; None where they are the same.
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
        """Return the ``rank`` largest."""
        values, coordinates, residuals = self.values[:rank], self.coordinates[:, :rank], self.residuals[:rank]
        return evolve(self, values=values, coordinates=coordinates, residuals=residuals)


class Hessian(Protocol):
    """A symmetric P×P matrix H, loss/parameter², computed lazily.

    ``size`` is P, and ``like`` a tensor of its type and device. ``apply`` returns H V [P, M]; ``diagonal`` [P],
    ``trace`` and ``product``, ⟨H, H'⟩ with a Hessian of the same form, return estimates; ``top`` returns the ``rank``
    largest eigenvalues and their vectors, fewer if the matrix is smaller.

    Example:
        >>> matrix: Hessian = DenseHessian(torch.diag(torch.tensor([1.0, 3.0])))
        >>> matrix.trace().value
        tensor(4.)
    """

    @property
    def size(self) -> int: ...
    @property
    def like(self) -> Tensor: ...
    def apply(self, vectors: Tensor) -> Tensor: ...
    def diagonal(self) -> Estimate: ...
    def trace(self) -> Estimate: ...
    def product(self, other: Any) -> Estimate: ...
    def top(self, rank: int) -> Eigenpairs: ...


@frozen(eq=False)
class DenseHessian:
    """A symmetric matrix [P, P], held whole."""

    whole: Tensor

    @property
    def size(self) -> int:
        return len(self.whole)

    @property
    def like(self) -> Tensor:
        return self.whole

    def apply(self, vectors: Tensor) -> Tensor:
        return self.whole @ vectors

    def diagonal(self) -> Estimate:
        return Estimate(self.whole.diagonal(), _WHOLE)

    def trace(self) -> Estimate:
        return Estimate(self.whole.trace(), _WHOLE)

    def product(self, other: "DenseHessian") -> Estimate:
        return Estimate((self.whole * other.whole).sum(), _WHOLE)

    def top(self, rank: int) -> Eigenpairs:
        values, vectors = torch.linalg.eigh(self.whole)
        values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
        residuals = torch.linalg.vector_norm(self.whole @ vectors - vectors * values, dim=0)
        return Eigenpairs(values, vectors, residuals, "eigh of the whole matrix")


def logits_at(head: nn.Module, features: Tensor, step: Tensor) -> Tensor:
    """Return the logits at θ + δ for a step δ [P] of the trainable parameters, differentiable by it alone."""
    tensors = {name: tensor.detach() for name, tensor in (*head.named_parameters(), *head.named_buffers())}
    moved = {name: tensors[name] + part for name, part in Layout.of(head).split(step).items()}
    return pure_forward(head, features, {**tensors, **moved})


def no_step(head: nn.Module) -> Tensor:
    """Return δ = 0 [P]."""
    return next(p for p in head.parameters() if p.requires_grad).new_zeros(Layout.of(head).size)


def gradient_of_risk(
    head: nn.Module, features: Tensor, labels: Tensor, loss: Loss, samples: int
) -> tuple[Tensor, Tensor]:
    """Return δ = 0 [P] and the gradient [P] at θ + δ of these samples' part of a mean over ``samples``."""
    step = no_step(head).requires_grad_()
    with torch.enable_grad():
        risk = per_sample_losses(loss, logits_at(head, features, step), labels).sum() / samples
        (gradient,) = torch.autograd.grad(risk, [step], create_graph=True)
    return step, gradient


def vjps(output: Tensor, step: Tensor, columns: Tensor, batched: bool = True) -> Tensor:
    """Return the vector–Jacobian products of M vectors [M, ...] of the output's shape, [M, ...]; the graph is kept."""
    if not output.requires_grad:
        return step.new_zeros(len(columns), *step.shape)
    # A single column is faster without vmap, which some layers lack.
    if batched and len(columns) > 1:
        options = {"retain_graph": True, "materialize_grads": True, "is_grads_batched": True}
        return torch.autograd.grad(output, [step], columns, **options)[0]
    found = [
        torch.autograd.grad(output, [step], column, retain_graph=True, materialize_grads=True)[0] for column in columns
    ]
    return torch.stack(found)


def dense_hessian(head: nn.Module, features: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Return the Hessian [P, P] of the mean loss by the head's trainable parameters, for any head."""
    step, gradient = gradient_of_risk(head, features, labels, loss, len(features))
    # torch cannot batch the passes of recurrent layers.
    several = 1 if has_recurrence(head) else max(1, min(_ROWS, _ELEMENTS // features.numel()))
    rows = [vjps(gradient, step, part) for part in torch.diag(torch.ones_like(step.detach())).split(several)]
    matrix = torch.cat(rows)
    return (matrix + matrix.T) / 2
