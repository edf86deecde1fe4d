"""Hessian of a linear head's risk in closed form: H = (1/n) Σ A_n ⊗ z̃_n z̃_nᵀ, z̃ the features and a 1 for the bias.

The head is linear in its parameters, so this is also the generalized Gauss-Newton matrix and, for softmax and logistic
losses, the Fisher, exactly. Products are two matrix products; norms and inner products follow from Gram matrices.
"""

from functools import cached_property

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.diagnostics.hessian import WHOLE_LIMIT, DenseHessian, Eigenpairs
from fishr.diagnostics.logit_curvature import LogitCurvature
from fishr.diagnostics.operators import largest_eigenpairs
from fishr.diagnostics.uncertainty import Estimate

_CLOSED_FORM = "closed form of a linear head"
# Elements of a block of a Gram matrix, or of the products of several columns, that are held at a time.
_ELEMENTS = 1 << 24
# Up to this size eigh is faster than many products.
_EIGH_SIZE = 512


@frozen(eq=False, slots=False)
class LinearHessian:
    """The Hessian of a linear head on the n samples of one domain, from their A_n and z̃_n."""

    # `inputs` is z̃ [n, F̃]; with `bias` the last column belongs to the bias, whose parameters follow all weights.

    curvature: LogitCurvature
    inputs: Tensor
    bias: bool

    @property
    def outputs(self) -> int:
        return self.curvature.scale.shape[1]

    @property
    def size(self) -> int:
        """P = C·F̃."""
        return self.outputs * self.inputs.shape[1]

    @property
    def like(self) -> Tensor:
        return self.inputs

    def apply(self, vectors: Tensor) -> Tensor:
        """H V = (1/n) Σ (A_n V_n z̃_n) ⊗ z̃_n for [P, M]: the columns V_m are read as C × F̃ matrices."""
        n, width, several = *self.inputs.shape, vectors.shape[1]
        blocks = self._blocks(vectors)
        moved = (self.inputs @ blocks.permute(2, 0, 1).reshape(several * self.outputs, width).T) / n
        curved = self.curvature.apply(moved.view(n, several, self.outputs).transpose(1, 2))
        back = curved.transpose(1, 2).reshape(n, several * self.outputs).T @ self.inputs
        return self._columns(back.view(several, self.outputs, width).permute(1, 2, 0))

    def diagonal(self) -> Estimate:
        """[P], (1/n) Σ diag(A_n) ⊗ z̃_n∘z̃_n."""
        blocks = self.curvature.diagonal().T @ self.inputs.square() / len(self.inputs)
        return Estimate(self._columns(blocks.unsqueeze(2)).squeeze(1), _CLOSED_FORM)

    def trace(self) -> Estimate:
        """(1/n) Σ tr(A_n) ‖z̃_n‖²."""
        return Estimate((self.curvature.diagonal().sum(1) * self.inputs.square().sum(1)).mean(), _CLOSED_FORM)

    def product(self, other: "LinearHessian") -> Estimate:
        """⟨H, H'⟩ = (1/nn') Σ tr(A_n A'_m)(z̃_n·z̃'_m)² of two domains, from whole matrices if that is less work."""
        if self.size <= min(WHOLE_LIMIT, len(self.inputs), len(other.inputs)):
            return Estimate((self.whole * other.whole).sum(), f"whole matrix, {_CLOSED_FORM}")
        total = self.inputs.new_zeros(())
        rows = max(1, _ELEMENTS // len(other.inputs))
        for start in range(0, len(self.inputs), rows):
            part = slice(start, start + rows)
            inner = self.inputs[part] @ other.inputs.T
            total = total + (self.curvature.rows(part).products(other.curvature) * inner.square()).sum()
        value = total / (len(self.inputs) * len(other.inputs))
        return Estimate(value, f"Gram matrices of the samples, {_CLOSED_FORM}")

    def quadratic(self, deltas: Tensor) -> Tensor:
        """[n], gᵀH g for the gradients g = δ ⊗ z̃ of its samples."""
        return (self.curvature.quadratics(deltas) * (self.inputs @ self.inputs.T).square()).mean(1)

    def top(self, rank: int) -> Eigenpairs:
        """Return the largest eigenvalues in the span of the features, by ``eigh`` if it is small, else by ``eigsh``."""
        # H is zero off R^C ⊗ span(z̃_n), so its eigenvalues are those of a matrix of size C·min(n, F̃).
        small = self.reduced
        if small.size <= max(_EIGH_SIZE, 3 * rank):
            found = DenseHessian(small.whole).top(rank)
            return evolve(found, route=f"eigh in the span of the features, {_CLOSED_FORM}", lift=self.lift)
        route = f"products in the span of the features, {_CLOSED_FORM}"
        return evolve(largest_eigenpairs(small.apply, small.size, self.inputs, rank, route), lift=self.lift)

    @cached_property
    def reduced(self) -> "LinearHessian":
        """The Hessian in an orthonormal basis of R^C ⊗ span(z̃_n)."""
        spanned = self.inputs if self._span is None else self._span[1].T.contiguous()
        return LinearHessian(self.curvature, spanned, bias=False)

    def onto(self, other: "LinearHessian") -> "LinearHessian":
        """This Hessian between the basis vectors of another domain's ``reduced``."""
        inputs = self.inputs if other._span is None else self.inputs @ other._span[0]
        return LinearHessian(self.curvature, inputs, bias=False)

    @cached_property
    def _span(self) -> tuple[Tensor, Tensor] | None:
        """Z̃ᵀ = QR with Q [F̃, n] and R [n, n]; None if there is nothing to gain."""
        n, width = self.inputs.shape
        return None if n >= width else torch.linalg.qr(self.inputs.T)

    def lift(self, coordinates: Tensor) -> Tensor:
        """[P, k] from coordinates [r, k] in the basis of ``reduced``."""
        blocks = coordinates.view(self.outputs, -1, coordinates.shape[1])
        return self._columns(blocks if self._span is None else torch.einsum("fr,crk->cfk", self._span[0], blocks))

    @cached_property
    def whole(self) -> Tensor:
        """[P, P], for small heads."""
        identity = torch.eye(self.size, dtype=self.inputs.dtype, device=self.inputs.device)
        columns = max(1, _ELEMENTS // (self.outputs * len(self.inputs)))
        found = torch.cat([self.apply(part) for part in identity.split(columns, 1)], 1)
        return (found + found.T) / 2

    def _blocks(self, vectors: Tensor) -> Tensor:
        """[P, M] in the order weight, bias, to [C, F̃, M]."""
        width, several = self.inputs.shape[1] - self.bias, vectors.shape[1]
        weights, biases = vectors.split([self.outputs * width, self.outputs * self.bias])
        parts = weights.reshape(self.outputs, width, several), biases.reshape(self.outputs, int(self.bias), several)
        return torch.cat(parts, 1)

    def _columns(self, blocks: Tensor) -> Tensor:
        """[C, F̃, M] to [P, M]."""
        parts = blocks.split([blocks.shape[1] - self.bias, int(self.bias)], 1)
        return torch.cat([part.reshape(-1, blocks.shape[2]) for part in parts])
