"""Hessian of any module's risk through its products with vectors: whole networks and large heads.

Traces, diagonals and norms are estimates here, each with its error; eigenvalues come with their residuals.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property, partial
from typing import Literal

import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from fishr.diagnostics.hessian import Eigenpairs, gradient_of_risk, logits_at, no_step, vjps
from fishr.diagnostics.logit_curvature import logit_curvature
from fishr.diagnostics.operators import curvlinops_operator, largest_eigenpairs, quiet, repeated
from fishr.diagnostics.uncertainty import Estimate, Estimation, averaged
from fishr.losses import Loss
from fishr.seeding import seeded
from fishr.statistics.twice_differentiable import has_recurrence
from fishr.types import Layout

# V [M, P] to M products of the matrix of some samples.
Products = Callable[[Tensor], Tensor]
# Bytes that a domain's graphs may take to be kept between products.
_GRAPHS = 1 << 28
# Tolerance of eigenvalues from which float32 iterates.
_ROUGH = 1e-4


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
    passed: Callable[[], object] = lambda: None  # called after each product

    @property
    def size(self) -> int:
        return Layout.of(self.module).size

    @property
    def like(self) -> Tensor:
        return next(p for p in self.module.parameters() if p.requires_grad).detach()

    def apply(self, vectors: Tensor) -> Tensor:
        columns, total = vectors.detach().T.contiguous(), torch.zeros_like(vectors.T)
        for products in self._products:
            total += products(columns)
        self.passed()
        return total.T

    def rounded(self, vectors: Tensor) -> Tensor:
        """Return H V by a pass in float32, twice as fast: for random draws, which are off by more."""
        if self.like.dtype != torch.float64:
            return self.apply(vectors)
        return self._in_float32.apply(vectors.float()).to(vectors)

    @cached_property
    def _in_float32(self) -> "OperatorHessian":
        inputs, labels = (each.float() if each.is_floating_point() else each for each in (self.inputs, self.labels))
        return evolve(self, module=copy.deepcopy(self.module).float(), inputs=inputs, labels=labels)

    @property
    def _products(self) -> Iterable[Products]:
        return (self._of_samples(z, y) for z, y in self._chunks) if self._kept is None else self._kept

    @property
    def _chunks(self) -> list[tuple[Tensor, Tensor]]:
        rows = self.estimation.chunk
        return list(zip(self.inputs.split(rows), self.labels.split(rows), strict=True))

    @cached_property
    def _kept(self) -> list[Products] | None:
        """The products of each chunk with their graphs, or None where those would take too much memory."""
        saved = list[int]()

        def count(tensor: Tensor) -> Tensor:
            saved.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            self._of_samples(*self._chunks[0])
        if sum(saved) * len(self._chunks) > _GRAPHS:
            return None
        return [self._of_samples(z, y) for z, y in self._chunks]

    def _of_samples(self, inputs: Tensor, labels: Tensor) -> Products:
        # On a CPU column after column takes about two thirds of the time; torch cannot batch recurrent layers.
        batched, samples = inputs.device.type != "cpu" and not has_recurrence(self.module), len(self.inputs)
        if self.kind == "hessian":
            step, gradient = gradient_of_risk(self.module, inputs, labels, self.loss, samples)
            return partial(vjps, gradient, step, batched=batched)
        step = no_step(self.module).requires_grad_()
        with torch.enable_grad():
            logits = logits_at(self.module, inputs, step)
            # Jᵀu is linear in u, so that the gradient of its product with v is J v.
            u = torch.zeros_like(logits, requires_grad=True)
            (back,) = torch.autograd.grad(logits, [step], u, create_graph=True)
        # Later, as torch.func does not run where saved tensors are counted.
        curvature = cache(partial(logit_curvature, self.loss, logits, labels))

        def products(columns: Tensor) -> Tensor:
            curved = curvature().apply(vjps(back, u, columns, batched).permute(1, 2, 0)).permute(2, 0, 1)
            return vjps(logits, step, curved / samples, batched)

        return products

    def diagonal(self) -> Estimate:
        return self._estimate("xdiag")

    def trace(self) -> Estimate:
        return self._estimate("xtrace")

    def product(self, other: "OperatorHessian") -> Estimate:
        """Return the estimate of ⟨H, H'⟩ by ``inner_products``."""
        found = inner_products([self, other], [self.top(1), other.top(1)])
        assert found.error is not None
        assert found.draws is not None
        return Estimate(found.value[0, 1], found.route, found.error[0, 1], found.draws[:, 0, 1])

    def top(self, rank: int) -> Eigenpairs:
        rank, tolerance = min(rank, self.size - 1), self.estimation.tolerance
        route = f"products, residuals up to {tolerance:g} of the largest"
        rough = self._in_float32.apply if tolerance >= _ROUGH and self.like.dtype == torch.float64 else None
        return largest_eigenpairs(self.apply, self.size, self.like, rank, route, tolerance, rough)

    def _estimate(self, name: str) -> Estimate:
        with quiet():
            import curvlinops
        products = self.estimation.products // 2 * 2
        operator, estimator = curvlinops_operator(self), getattr(curvlinops, name)
        route = f"curvlinops {name}, {products} products"
        return repeated(lambda: estimator(operator, products), self.like, self.estimation, route)


def inner_products(hessians: Sequence[OperatorHessian], tops: Sequence[Eigenpairs]) -> Estimate:
    """Return ⟨H_A, H_B⟩ [K, K] = tr QᵀH_A H_B Q + E H_Aw·H_Bw, Q the span of the top eigenvectors, w ⊥ Q random."""
    # The few eigenvalues that stand apart make most of the norm, and nearly all of the spread without Q (Meyer et al.
    # 2021, arXiv 2010.09649). Each matrix meets each w once.
    estimation, like, size = hessians[0].estimation, hessians[0].like, hessians[0].size
    basis = torch.linalg.qr(torch.cat([pairs.vectors for pairs in tops], 1)).Q
    with seeded(estimation.seed, like.device):
        signs = torch.randint(2, (size, estimation.products), device=like.device).to(like.dtype) * 2 - 1
    pairs = list[Tensor]()
    for probes in torch.cat([basis, signs - basis @ (basis.T @ signs)], 1).split(estimation.products, 1):
        images = torch.stack([hessian.rounded(probes) for hessian in hessians])
        pairs.append(torch.einsum("apm,bpm->mab", images, images))
    known, drawn = torch.cat(pairs).split([basis.shape[1], estimation.products])
    return averaged(known.sum(0) + drawn, f"top eigenvectors and Hutchinson's estimator, seed {estimation.seed}")
