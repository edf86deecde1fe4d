"""Hessian of a head's risk held whole, by ``torch.func``: any module, up to a few thousand parameters."""

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.diagnostics.hessian import Eigenpairs, Estimate
from fishr.losses import Loss, per_sample_losses
from fishr.statistics.functional_moments import refuse_batch_statistics
from fishr.statistics.pure_forward import pure_forward
from fishr.types import Layout

_WHOLE = "whole matrix"
# Parameters up to which a Hessian is held whole: 32 MiB in float64, and one backward pass for each.
WHOLE_LIMIT = 2048


@frozen(eq=False)
class DenseHessian:
    """A symmetric matrix.

    Args:
        matrix: [P, P], loss/parameter².

    Example:
        >>> DenseHessian(torch.diag(torch.tensor([1.0, 3.0]))).top(1).values
        tensor([3.])
    """

    matrix: Tensor

    @property
    def whole(self) -> Tensor:
        """[P, P]."""
        return self.matrix

    @property
    def size(self) -> int:
        """P."""
        return len(self.matrix)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and device that it works in."""
        return self.matrix

    def apply(self, vectors: Tensor) -> Tensor:
        """H V for [P, M]."""
        return self.matrix @ vectors

    def diagonal(self) -> Estimate:
        """[P]."""
        return Estimate(self.matrix.diagonal(), _WHOLE)

    def trace(self) -> Estimate:
        """0-dim."""
        return Estimate(self.matrix.trace(), _WHOLE)

    def squared_norm(self) -> Estimate:
        """‖H‖_F²."""
        return Estimate(self.matrix.square().sum(), _WHOLE)

    def product(self, other: "DenseHessian") -> Estimate:
        """⟨H, H'⟩, 0-dim."""
        return Estimate((self.matrix * other.matrix).sum(), _WHOLE)

    def top(self, rank: int) -> Eigenpairs:
        """The largest eigenvalues by ``eigh``."""
        values, vectors = torch.linalg.eigh(self.matrix)
        values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
        residuals = torch.linalg.vector_norm(self.matrix @ vectors - vectors * values, dim=0)
        return Eigenpairs(values, vectors, residuals, "eigh of the whole matrix")


def dense_hessian(head: nn.Module, features: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Hessian of the mean loss by the head's trainable parameters.

    Args:
        head: any module that treats the rows of its input independently.
        features: [n, ...] what the head reads.
        labels: what the loss reads.
        loss: per-sample.

    Returns:
        [P, P], loss/parameter², in the order of ``Layout.of(head)``, without graph.

    Raises:
        InputError: no trainable parameter, or batch statistics that mix the samples.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> dense_hessian(nn.Linear(3, 2), torch.randn(5, 3), torch.zeros(5).long(), CrossEntropy()).shape
        torch.Size([8, 8])
    """
    refuse_batch_statistics(head)
    layout = Layout.of(head)
    tensors = {name: tensor.detach() for name, tensor in (*head.named_parameters(), *head.named_buffers())}
    flat = torch.cat([tensors[name].flatten() for name in layout.names])

    def risk(parameters: Tensor) -> Tensor:
        logits = pure_forward(head, features, {**tensors, **layout.split(parameters)})
        return per_sample_losses(loss, logits, labels).mean()

    # One row after the other through ordinary autograd: recurrent layers, which torch cannot batch, serve as well.
    with torch.enable_grad():
        flat.requires_grad_()
        (gradient,) = torch.autograd.grad(risk(flat), [flat], create_graph=True)
        rows = [_row(entry, flat) for entry in gradient]
    matrix = torch.stack(rows).detach()
    return (matrix + matrix.T) / 2


def _row(entry: Tensor, flat: Tensor) -> Tensor:
    if not entry.requires_grad:
        return torch.zeros_like(flat)
    (row,) = torch.autograd.grad(entry, [flat], retain_graph=True, materialize_grads=True)
    return row
