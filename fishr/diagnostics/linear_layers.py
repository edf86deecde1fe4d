"""Gauss-Newton matrix of heads whose parameters belong to linear layers, from the factors of their Jacobians.

By the parameters of a layer z = W h + b that is applied once, the Jacobian of output c on sample n is an outer product,
δ_n^c h_nᵀ with δ_n^c = ∂f_n^c/∂z. All of G = (1/n) Σ J_nᵀ A_n J_n follows from δ and h, whatever is between the layers:
its diagonal from one matrix product, the whole matrix from one for each pair of parameters, and the Gram matrix of the
Jacobians, which has the same eigenvalues, from inner products of δ and of h.
"""

from functools import cached_property
from typing import Any

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.diagnostics.logit_curvature import LogitCurvature
from fishr.statistics.pure_forward import pure_forward, twin
from fishr.types import Layout

# Elements of the products of two factors that are held at a time, and of all Jacobians' factors δ.
_ELEMENTS, _LARGEST = 1 << 24, 1 << 27
# Layers without parameters whose outputs are piecewise linear in their inputs.
_PIECEWISE_LINEAR = (
    *(nn.Linear, nn.Identity, nn.Flatten, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.Dropout),
)


@frozen(eq=False, slots=False)
class LayeredGaussNewton:
    """G = (1/n) Σ J_nᵀ A_n J_n of one domain, J_n^c = δ_n^c ⊗ h_n by each parameter tensor."""

    curvature: LogitCurvature
    # δ [n, C, o] and h [n, i] of each parameter, in the order of the layout; h is 1 for a bias.
    factors: tuple[tuple[Tensor, Tensor], ...]

    def mean_gradient(self, deltas: Tensor) -> Tensor:
        """[P], (1/n) Σ J_nᵀ δℓ_n for ∂ℓ/∂logits [n, C]."""
        found = [((deltas.unsqueeze(1) @ each).squeeze(1).T @ inputs).flatten() for each, inputs in self.factors]
        return torch.cat(found) / self._samples

    def diagonal(self) -> Tensor:
        """[P]."""
        curved = [(self._curved(deltas) * deltas).sum(1).T @ inputs.square() for deltas, inputs in self.factors]
        return torch.cat([part.flatten() for part in curved]) / self._samples

    @cached_property
    def whole(self) -> Tensor:
        """[P, P]."""
        rows = list[Tensor]()
        for a, (deltas, inputs) in enumerate(self.factors):
            curved = self._curved(deltas)
            blocks = [
                self._block(curved, inputs, *other) if a <= b else rows[b][:, self._columns(a)].T
                for b, other in enumerate(self.factors)
            ]
            rows.append(torch.cat(blocks, 1))
        return torch.cat(rows) / self._samples

    @cached_property
    def jacobian_gram(self) -> Tensor:
        """[n, C, n, C], J_n^c · J_m^d."""
        samples, outputs = self.factors[0][0].shape[:2]
        total: Tensor | None = None
        for deltas, inputs in self.factors:
            inner = (deltas.flatten(0, 1) @ deltas.flatten(0, 1).T).view(samples, outputs, samples, outputs)
            inner *= (inputs @ inputs.T)[:, None, :, None]
            total = inner if total is None else total.add_(inner)
        assert total is not None
        return total

    @property
    def _samples(self) -> int:
        return len(self.factors[0][1])

    def _curved(self, deltas: Tensor) -> Tensor:
        """[n, C, o], A_n δ_n."""
        return self.curvature.apply(deltas)

    def _columns(self, index: int) -> slice:
        widths = [deltas.shape[2] * inputs.shape[1] for deltas, inputs in self.factors]
        start = sum(widths[:index])
        return slice(start, start + widths[index])

    def _block(self, curved: Tensor, own: Tensor, deltas: Tensor, inputs: Tensor) -> Tensor:
        """[o·i, O·I], Σ_n (δ_nᵀ A_n δ'_n) ⊗ h_n h'_nᵀ."""
        (o, i), (other, width) = (curved.shape[2], own.shape[1]), (deltas.shape[2], inputs.shape[1])
        total, rows = curved.new_zeros(o * other, i * width), max(1, _ELEMENTS // (o * other + i * width))
        for part in (slice(start, start + rows) for start in range(0, len(own), rows)):
            outer = (curved[part].transpose(1, 2) @ deltas[part]).flatten(1)
            total.addmm_(outer.T, (own[part].unsqueeze(2) * inputs[part].unsqueeze(1)).flatten(1))
        return total.view(o, other, i, width).transpose(1, 2).reshape(o * i, other * width)


def layered_gauss_newtons(
    head: nn.Module, features: Tensor, curvature: LogitCurvature, sizes: tuple[int, ...]
) -> tuple[LayeredGaussNewton, ...] | None:
    """Return G of each domain, or None where a parameter is not of a linear layer that is applied once to [n, i]."""
    factors = _factors(head, features, curvature.scale.shape)
    if factors is None:
        return None
    rows = [zip(each.split(sizes), h.split(sizes), strict=True) for each, h in factors]
    return tuple(map(LayeredGaussNewton, curvature.split(sizes), zip(*rows, strict=True)))


def is_piecewise_linear(head: nn.Module) -> bool:
    """Return whether a chain of layers is piecewise linear in each single parameter, so that diag H is diag G."""
    return type(head) is nn.Sequential and all(
        type(part) in (nn.Sequential, *_PIECEWISE_LINEAR) for part in head.modules()
    )


def _factors(head: nn.Module, features: Tensor, shape: torch.Size) -> list[tuple[Tensor, Tensor]] | None:
    module, calls = twin(head), list[tuple[nn.Module, Tensor, Tensor]]()
    layers = {name: layer for name, layer in module.named_modules() if type(layer) is nn.Linear}
    owners = {f"{name}.{kind}".lstrip("."): layer for name, layer in layers.items() for kind in ("weight", "bias")}
    names = Layout.of(head).names
    if not owners.keys() >= set(names) or len(shape) != 2:
        return None

    def watch(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        # A tensor of its own, as the next layer may write into the output.
        tap = torch.zeros_like(output, requires_grad=True)
        calls.append((layer, inputs[0].detach().clone(), tap))
        return output + tap

    chosen = dict.fromkeys(owners[name] for name in names)
    for layer in chosen:
        layer.register_forward_hook(watch)
    with torch.enable_grad():
        logits = pure_forward(module, features, {})
        ends = logits.flatten(1).sum(0).unbind()
    found = {layer: (h, tap) for layer, h, tap in calls}
    flat = all(h.ndim == 2 and len(h) == len(features) for _, h, _ in calls)
    elements = shape.numel() * sum(tap.shape[-1] for _, _, tap in calls)
    once = len(found) == len(calls) and found.keys() == chosen.keys()
    if not once or not flat or logits.shape != shape or elements > _LARGEST:
        return None
    taps = [tap for _, tap in found.values()]
    columns = [torch.autograd.grad(end, taps, retain_graph=True, materialize_grads=True) for end in ends]
    jacobians = {layer: torch.stack(parts, 1) for layer, parts in zip(found, zip(*columns, strict=True), strict=True)}
    pairs = list[tuple[Tensor, Tensor]]()
    for name in names:
        inputs, tap = found[owners[name]]
        pairs.append((jacobians[owners[name]], inputs if name.endswith("weight") else tap.new_ones(len(tap), 1)))
    return pairs
