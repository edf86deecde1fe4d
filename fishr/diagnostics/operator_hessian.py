"""Hessian of any module's risk through its products with vectors, by curvlinops: whole networks and large heads.

Traces, diagonals and norms are estimates here, each with its error; eigenvalues come with their residuals.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.diagnostics.hessian import Eigenpairs
from fishr.diagnostics.operators import curvlinops_operator, largest_eigenpairs, quiet, repeated
from fishr.diagnostics.uncertainty import Estimate, Estimation, averaged
from fishr.losses import Loss, per_sample_losses
from fishr.seeding import seeded
from fishr.statistics.pure_forward import pure_forward
from fishr.types import Layout

_TOLERANCE = 1e-4  # of eigenvalues


class _MeanLoss(nn.Module):
    """The mean of a per-sample loss, as curvlinops takes it."""

    reduction = "mean"

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self._loss = loss

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return per_sample_losses(self._loss, logits, labels).mean()


class _Pure(nn.Module):
    """A module whose forward passes leave its buffers and their inputs as they are."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: Tensor) -> Tensor:
        return pure_forward(self.module, inputs, {})


@frozen(eq=False, slots=False)
class OperatorHessian:
    """∇²R of any module on one domain, or its Gauss-Newton matrix, by products alone."""

    # Estimators: XTrace and XDiag (Epperly et al. 2024, arXiv 2301.07825).

    module: nn.Module
    inputs: Tensor
    labels: Tensor
    loss: Loss
    estimation: Estimation = Estimation()  # noqa: RUF009 (immutable)
    kind: Literal["hessian", "ggn"] = "hessian"
    exact_diagonal: Callable[[], Tensor] | None = None

    @property
    def size(self) -> int:
        return Layout.of(self.module).size

    @property
    def like(self) -> Tensor:
        return next(p for p in self.module.parameters() if p.requires_grad).detach()

    @cached_property
    def _operator(self) -> Any:
        with quiet():
            from curvlinops import GGNLinearOperator, HessianLinearOperator

        operator = GGNLinearOperator if self.kind == "ggn" else HessianLinearOperator
        chunks = zip(self.inputs.split(self.estimation.chunk), self.labels.split(self.estimation.chunk), strict=True)
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        return operator(_Pure(self.module), _MeanLoss(self.loss), parameters, list(chunks), check_deterministic=False)

    def apply(self, vectors: Tensor) -> Tensor:
        with quiet():
            return (self._operator @ vectors).detach()

    def diagonal(self) -> Estimate:
        return self._estimate("xdiag")

    def trace(self) -> Estimate:
        return self._estimate("xtrace")

    def product(self, other: "OperatorHessian") -> Estimate:
        """Return ⟨H, H'⟩ = d·d' + E ((H − D)w)·((H' − D')w) over signs w, the same for all pairs of one seed."""
        # D is the exact diagonal d where both Hessians have one, else zero.
        draws, estimation = list[Tensor](), self.estimation
        own, others = self._known_diagonal, other._known_diagonal
        if own is None or others is None:
            own = others = self.like.new_zeros(self.size)
        with seeded(estimation.seed, self.like.device):
            for _ in range(estimation.repeats):
                signs = torch.randint(2, (self.size, estimation.products), device=self.like.device) * 2 - 1
                probes = signs.to(self.like.dtype)
                image = self.apply(probes) - own.unsqueeze(1) * probes
                beside = image if other is self else other.apply(probes) - others.unsqueeze(1) * probes
                draws.append((image * beside).sum(0) + own @ others)
        return averaged(torch.cat(draws), f"Hutchinson's estimator, seed {estimation.seed}")

    @cached_property
    def _known_diagonal(self) -> Tensor | None:
        return None if self.exact_diagonal is None or self.kind == "ggn" else self.exact_diagonal()

    def top(self, rank: int) -> Eigenpairs:
        rank = min(rank, self.size - 1)
        route = f"curvlinops products, tolerance {_TOLERANCE:g}"
        return largest_eigenpairs(self.apply, self.size, self.like, rank, route, _TOLERANCE)

    def _estimate(self, name: str) -> Estimate:
        with quiet():
            import curvlinops
        products = self.estimation.products // 2 * 2
        operator, estimator = curvlinops_operator(self), getattr(curvlinops, name)
        route = f"curvlinops {name}, {products} products of its {type(self._operator).__name__}"
        return repeated(lambda: estimator(operator, products), self.like, self.estimation, route)
