"""Domains with dense float64 matrices by plain autograd, sample by sample: what every diagnostic is compared with."""

from functools import cache, cached_property

import pytest
import torch
from attrs import frozen
from cases import FLOAT64, HEADS, oracle_gradients
from loss_cases import LOSSES
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fishr.diagnostics import Curvature
from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.losses import Loss

TIGHT = {"atol": 1e-8, "rtol": 1e-8}


@frozen(eq=False, slots=False)
class Dense:
    """A head and its data, with the gradients, Hessians and Gauss-Newton matrices of each domain, whole."""

    head: nn.Module
    features: Tensor
    labels: Tensor
    sizes: tuple[int, ...]
    loss: Loss

    @property
    def arguments(self) -> tuple[nn.Module, Tensor, Tensor, tuple[int, ...], Loss]:
        return self.head, self.features, self.labels, self.sizes, self.loss

    @property
    def curvature(self) -> Curvature:
        return Curvature.of(*self.arguments)

    def grow(self, patch: pytest.MonkeyPatch, limit: int = 10) -> None:
        """Take the routes of a large head. Its products are those of the dense matrices, a hundred times as fast."""

        def apply(hessian: OperatorHessian, vectors: Tensor) -> Tensor:
            matrices = self.gauss_newtons if hessian.kind == "ggn" else self.hessians
            return (matrices[self.sizes.index(len(hessian.inputs))] @ vectors.double()).to(vectors)

        patch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", limit)
        patch.setattr(OperatorHessian, "apply", apply)
        patch.setattr(Curvature, "layered", None)

    @cached_property
    def parts(self) -> list[tuple[Tensor, Tensor]]:
        sizes = list(self.sizes)
        return list(zip(self.features.split(sizes), self.labels.split(sizes), strict=True))

    @cached_property
    def flat(self) -> Tensor:
        return torch.cat([p.detach().flatten() for p in self.head.parameters() if p.requires_grad])

    def risk(self, flat: Tensor, domain: int) -> Tensor:
        return self.loss(self.logits(flat, self.parts[domain][0]), self.parts[domain][1]).sum() / self.sizes[domain]

    def logits(self, flat: Tensor, features: Tensor) -> Tensor:
        named, start = {}, 0
        for name, p in self.head.named_parameters():
            if p.requires_grad:
                named[name] = flat[start : start + p.numel()].view_as(p)
                start += p.numel()
        buffers = {name: buffer.clone() for name, buffer in self.head.named_buffers()}
        with sdpa_kernel(SDPBackend.MATH):
            return torch.func.functional_call(self.head, {**named, **buffers}, (features.clone(),))

    @cached_property
    def risks(self) -> Tensor:
        return torch.stack([self.risk(self.flat, k) for k in range(len(self.sizes))]).detach()

    @cached_property
    def gradients(self) -> list[Tensor]:
        return [oracle_gradients(self.head, z, y, self.loss).detach() for z, y in self.parts]

    @cached_property
    def means(self) -> Tensor:
        return torch.stack([g.sum(0) / len(g) for g in self.gradients])

    @cached_property
    def covariances(self) -> list[Tensor]:
        return [(g - g.mean(0)).T @ (g - g.mean(0)) / len(g) for g in self.gradients]

    @cached_property
    def variances(self) -> Tensor:
        return torch.stack([c.diagonal() for c in self.covariances])

    @cached_property
    def hessians(self) -> list[Tensor]:
        domains = range(len(self.sizes))
        return [torch.autograd.functional.hessian(lambda t, k=k: self.risk(t, k), self.flat) for k in domains]

    @cached_property
    def diagonals(self) -> Tensor:
        return torch.stack([h.diagonal() for h in self.hessians])

    @cached_property
    def gauss_newtons(self) -> list[Tensor]:
        found = []
        for features, labels in self.parts:
            total = torch.zeros(len(self.flat), len(self.flat), dtype=FLOAT64)
            for n in range(len(features)):
                z, y = features[n : n + 1], labels[n : n + 1]
                jacobian = torch.autograd.functional.jacobian(lambda t, z=z: self.logits(t, z)[0], self.flat)
                logits = self.logits(self.flat, z).detach()[0]
                curved = torch.autograd.functional.hessian(lambda f, y=y: self.loss(f[None], y).sum(), logits)
                total += jacobian.T @ curved @ jacobian
            found.append(total / len(features))
        return found


@cache
def dense(head: str, loss: str, sizes: tuple[int, ...]) -> Dense:
    torch.manual_seed(1)
    samples, chosen = sum(sizes), LOSSES[loss]
    module = HEADS[head].head(chosen.outputs)
    return Dense(module, HEADS[head].inputs(samples), chosen.labels(samples), sizes, chosen.loss)


# Closed form; BackPACK's chains of layers; layers and losses that only torch.func knows; frozen parts.
CASES: tuple[tuple[str, str, tuple[int, ...]], ...] = (
    *((head, loss, (1, 5, 2)) for head in ("linear", "linear without bias") for loss in LOSSES),
    *(("linear", "cross-entropy", sizes) for sizes in ((4, 4), (1,), (7,), (1, 1, 1), (30, 12))),
    ("linear", "binary", (30, 12)),
    ("two layers", "cross-entropy", (1, 5, 2)),
    ("two layers", "binary", (4, 4)),
    ("two layers", "squared", (4, 4)),
    ("two layers", "multi-label", (4, 3)),
    ("three layers", "cross-entropy", (4, 4)),
    ("in-place activation", "cross-entropy", (3, 4)),
    ("frozen first layer", "cross-entropy", (4, 4)),
    ("conv1d", "cross-entropy", (2, 3)),
    ("batch norm", "binary", (4, 4)),
    ("recurrent", "cross-entropy", (2, 3)),
    ("tokens", "squared", (2, 3)),
    ("embedding", "cross-entropy", (3, 4)),
    ("first layer in place", "cross-entropy", (4, 4)),
    ("attention", "cross-entropy", (2, 3)),
    ("0-dim parameter", "cross-entropy", (4, 4)),
    ("moving statistics", "binary", (3, 4)),
)
