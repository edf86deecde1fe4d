"""Hessian of any module's risk through its products with vectors, by curvlinops: whole networks and large heads.

Traces, diagonals and norms are estimates here, each with its error; eigenvalues come with their residuals.
"""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from attrs import evolve, field, frozen
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
    passed: Callable[[], object] = lambda: None  # called after each product
    _operators: dict[int, Any] = field(factory=dict, init=False)

    @property
    def size(self) -> int:
        return Layout.of(self.module).size

    @property
    def like(self) -> Tensor:
        return next(p for p in self.module.parameters() if p.requires_grad).detach()

    def _operator(self, columns: int) -> Any:
        # A pass of few columns takes more samples, which costs no more memory and half the time.
        rows = self.estimation.chunk * max(1, self.estimation.products // columns)
        if rows not in self._operators:
            self._operators[rows] = self._operator_in_chunks(rows)
        return self._operators[rows]

    def _operator_in_chunks(self, rows: int) -> Any:
        with quiet():
            from curvlinops import GGNLinearOperator, HessianLinearOperator

        operator = GGNLinearOperator if self.kind == "ggn" else HessianLinearOperator
        chunks = zip(self.inputs.split(rows), self.labels.split(rows), strict=True)
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        return operator(_Pure(self.module), _MeanLoss(self.loss), parameters, list(chunks), check_deterministic=False)

    def apply(self, vectors: Tensor) -> Tensor:
        with quiet():
            found = (self._operator(vectors.shape[1]) @ vectors).detach()
        self.passed()
        return found

    def rounded(self, vectors: Tensor) -> Tensor:
        """Return H V by a pass in float32, twice as fast: for random draws, which are off by more."""
        if self.like.dtype != torch.float64:
            return self.apply(vectors)
        return self._in_float32.apply(vectors.float()).to(vectors)

    @cached_property
    def _in_float32(self) -> "OperatorHessian":
        inputs, labels = (each.float() if each.is_floating_point() else each for each in (self.inputs, self.labels))
        return evolve(self, module=copy.deepcopy(self.module).float(), inputs=inputs, labels=labels)

    def diagonal(self) -> Estimate:
        return self._estimate("xdiag")

    def trace(self) -> Estimate:
        return self._estimate("xtrace")

    def product(self, other: "OperatorHessian") -> Estimate:
        """Return the estimate of ⟨H, H'⟩ by ``inner_products``."""
        found = inner_products([self, other])
        assert found.error is not None
        assert found.draws is not None
        return Estimate(found.value[0, 1], found.route, found.error[0, 1], found.draws[:, 0, 1])

    @cached_property
    def known_diagonal(self) -> Tensor | None:
        return None if self.exact_diagonal is None or self.kind == "ggn" else self.exact_diagonal()

    def top(self, rank: int) -> Eigenpairs:
        rank = min(rank, self.size - 1)
        # Not in float32: where the last eigenvalue is small, its rounding is above the tolerance and nothing converges.
        route = f"curvlinops products, tolerance {_TOLERANCE:g}"
        return largest_eigenpairs(self.apply, self.size, self.like, rank, route, _TOLERANCE)

    def _estimate(self, name: str) -> Estimate:
        with quiet():
            import curvlinops
        products = self.estimation.products // 2 * 2
        operator, estimator = curvlinops_operator(self), getattr(curvlinops, name)
        route = f"curvlinops {name}, {products} products of its {type(self._operator(1)).__name__}"
        return repeated(lambda: estimator(operator, products), self.like, self.estimation, route)


def inner_products(hessians: Sequence[OperatorHessian]) -> Estimate:
    """Return ⟨H_A, H_B⟩ [K, K] = d_A·d_B + E ((H_A − D_A)w)·((H_B − D_B)w) over signs w, the same for all pairs."""
    # D is the exact diagonal d where all have one, else zero. Each matrix meets each w once.
    estimation, like, size = hessians[0].estimation, hessians[0].like, hessians[0].size
    known = [diagonal for hessian in hessians if (diagonal := hessian.known_diagonal) is not None]
    diagonals = torch.stack(known) if len(known) == len(hessians) else like.new_zeros(len(hessians), size)
    draws = list[Tensor]()
    with seeded(estimation.seed, like.device):
        for _ in range(estimation.repeats):
            signs = torch.randint(2, (size, estimation.products), device=like.device) * 2 - 1
            probes = signs.to(like.dtype)
            images = [
                hessian.rounded(probes) - diagonal.unsqueeze(1) * probes
                for hessian, diagonal in zip(hessians, diagonals, strict=True)
            ]
            pairs = torch.stack([torch.stack([(a * b).sum(0) for b in images], 1) for a in images], 1)
            draws.append(pairs + diagonals @ diagonals.T)
    return averaged(torch.cat(draws), f"Hutchinson's estimator, seed {estimation.seed}")
