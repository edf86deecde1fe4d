"""Per-domain gradient moments through a BackPACK extension; the only module that knows BackPACK.

The extension reduces per-sample gradients to each domain's mean and variance inside the backward pass: a linear
layer by two matrix products a domain, any other layer that BackPACK's BatchGrad supports in chunks of samples.
"""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, cast

import torch
from backpack import backpack, extend
from backpack.context import CTX
from backpack.core.derivatives.batchnorm_nd import BatchNormNdDerivatives
from backpack.core.derivatives.conv1d import Conv1DDerivatives
from backpack.core.derivatives.conv2d import Conv2DDerivatives
from backpack.core.derivatives.conv3d import Conv3DDerivatives
from backpack.core.derivatives.conv_transpose1d import ConvTranspose1DDerivatives
from backpack.core.derivatives.conv_transpose2d import ConvTranspose2DDerivatives
from backpack.core.derivatives.conv_transpose3d import ConvTranspose3DDerivatives
from backpack.core.derivatives.embedding import EmbeddingDerivatives
from backpack.core.derivatives.linear import LinearDerivatives
from backpack.core.derivatives.lstm import LSTMDerivatives
from backpack.core.derivatives.rnn import RNNDerivatives
from backpack.extensions.backprop_extension import FAIL_SILENT
from backpack.extensions.firstorder.base import FirstOrderBackpropExtension, FirstOrderModuleExtension
from backpack.extensions.module_extension import ModuleExtension
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.losses import Loss, per_sample_losses
from fishr.statistics.backpack_limits import (
    PARAMETERS,
    REMEDY,
    refuse_changed_outputs,
    refuse_missing,
    refuse_second_use,
    refuse_unsupported,
)
from fishr.statistics.merge import moments_of_samples
from fishr.types import GradientMoments, Layout

# Elements of per-sample gradients that a layer other than Linear may hold at a time (64 MiB in float32).
_CHUNK = 1 << 24

_DERIVATIVES: dict[type[nn.Module], Callable[[], Any]] = {
    nn.Linear: LinearDerivatives,
    nn.Conv1d: Conv1DDerivatives,
    nn.Conv2d: Conv2DDerivatives,
    nn.Conv3d: Conv3DDerivatives,
    nn.ConvTranspose1d: ConvTranspose1DDerivatives,
    nn.ConvTranspose2d: ConvTranspose2DDerivatives,
    nn.ConvTranspose3d: ConvTranspose3DDerivatives,
    nn.BatchNorm1d: BatchNormNdDerivatives,
    nn.BatchNorm2d: BatchNormNdDerivatives,
    nn.BatchNorm3d: BatchNormNdDerivatives,
    nn.Embedding: EmbeddingDerivatives,
    nn.RNN: RNNDerivatives,
    nn.LSTM: LSTMDerivatives,
}
_SAVEFIELD = "fishr_domain_moments"


def backpack_moments(
    head: nn.Module, features: Tensor, labels: Tensor, sizes: tuple[int, ...], loss: Loss, dtype: torch.dtype
) -> GradientMoments:
    """Per-domain moments of a head's per-sample gradients by BackPACK.

    The head itself is left as it is: the pass goes through a twin that shares its parameters. Layers that draw
    at random, such as dropout, draw anew.

    Args:
        head: module of BackPACK's layers.
        features: [N, ...] what the head reads; with or without a graph.
        labels: what the loss reads.
        sizes: samples of each domain, summing to N.
        loss: per-sample loss.
        dtype: in which sums over samples are taken.

    Returns:
        Moments, differentiable by features and head parameters unless gradients are switched off.

    Raises:
        InputError: no statistic can be had for a parameter; the message names it, its layer and the remedy.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> head = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> labels = torch.tensor([0, 1, 0, 1])
        >>> backpack_moments(head, torch.randn(4, 3), labels, (2, 2), CrossEntropy(), torch.float32).mean.shape
        torch.Size([2, 26])
    """
    layout = Layout.of(head)
    graph = torch.is_grad_enabled()
    refuse_unsupported(head, graph)
    twin = _twin(head)
    handles_before = len(CTX.hook_handles)
    try:
        with torch.enable_grad():
            refuse_changed_outputs(twin)
            extend(twin)
            integer = not features.is_floating_point()
            z = features if features.requires_grad or integer else features.detach().requires_grad_()
            total = per_sample_losses(loss, twin(z), labels).sum()
            refuse_second_use(twin, total, z)
            # Asking for the features' gradient alone lets every layer's hook fire and never touches ``.grad``.
            wanted = [p for p in twin.parameters() if p.requires_grad] if integer else [z]
            with backpack(_DomainMoments(sizes, dtype)), warnings.catch_warnings():
                # So it is with features that are indices.
                warnings.filterwarnings("ignore", "Full backward hook is firing")
                torch.autograd.grad(total, wanted, create_graph=graph, allow_unused=True)
        found: dict[str, Any] = {
            name: getattr(p, _SAVEFIELD, None) for name, p in twin.named_parameters() if p.requires_grad
        }
    finally:
        for parameter in twin.parameters():
            if hasattr(parameter, _SAVEFIELD):
                delattr(parameter, _SAVEFIELD)
        # BackPACK keeps every hook it ever set in a global list.
        for handle in CTX.hook_handles[handles_before:]:
            handle.remove()
        del CTX.hook_handles[handles_before:]
    if missing := [name for name in layout.names if found[name] is None]:
        refuse_missing(head, missing[0])
    columns = [found[name] for name in layout.names]
    mean, variance = (torch.cat([part[i].flatten(1) for part in columns], 1) for i in (0, 1))
    moments = GradientMoments(tuple(sizes), mean, variance, layout)
    return moments if graph else moments.detach()


def _twin(head: nn.Module) -> nn.Module:
    """A copy of the module's structure on the same parameters, so that hooks never reach the user's module."""
    shared = {id(tensor): tensor for tensor in (*head.parameters(), *head.buffers())}
    twin = copy.deepcopy(head, cast(dict[int, Any], shared))
    for module in twin.modules():
        # An in-place layer would overwrite what the hook of the layer before it needs.
        if getattr(module, "inplace", False):
            module.inplace = False  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return twin


class _DomainMoments(FirstOrderBackpropExtension):
    """Saves (mean [K, ...], variance [K, ...]) of each parameter's per-sample gradients."""

    def __init__(self, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
        layers: dict[type[nn.Module], ModuleExtension] = {
            kind: _LayerMoments(derivatives(), PARAMETERS[kind]) for kind, derivatives in _DERIVATIVES.items()
        }
        layers |= {nn.Linear: _LinearMoments(), nn.Embedding: _EmbeddingMoments()}
        super().__init__(_SAVEFIELD, layers, fail_mode=FAIL_SILENT)
        self.sizes = sizes
        self.dtype = dtype


def _refuse_misuse(module: nn.Module, name: str, rows: int, samples: int) -> None:
    if rows != samples:
        raise InputError(
            f"head layer {type(module).__qualname__}: its output has {rows} rows for {samples} samples, so that rows "
            f"are not samples; {REMEDY}"
        )
    if hasattr(getattr(module, name), _SAVEFIELD):
        raise InputError(
            f"head layer {type(module).__qualname__}: it is called more than once in a forward pass, "
            f"so that its per-sample gradient is not that of one call; {REMEDY}"
        )


class _LayerMoments(FirstOrderModuleExtension):
    """Any layer with BackPACK derivatives: per-sample gradients of a chunk at a time."""

    def __init__(self, derivatives: Any, names: tuple[str, ...]) -> None:
        self._derivatives = derivatives
        for name in names:
            if not hasattr(self, name):
                setattr(self, name, partial(self._moments, name))
        super().__init__(params=list(names))

    def _moments(
        self, name: str, ext: _DomainMoments, module: nn.Module, g_inp: Any, g_out: tuple[Tensor], _: Any
    ) -> tuple[Tensor, Tensor]:
        _refuse_misuse(module, name, len(g_out[0]), sum(ext.sizes))
        step = max(1, _CHUNK // max(1, prod(getattr(module, name).shape)))
        domains, start = list[tuple[Tensor, Tensor]](), 0
        for size in ext.sizes:
            chunks = [range(a, min(a + step, start + size)) for a in range(start, start + size, step)]
            domains.append(
                moments_of_samples([self._samples(name, module, g_inp, g_out, rows).to(ext.dtype) for rows in chunks])
            )
            start += size
        means, variances = zip(*domains, strict=True)
        return torch.stack(means), torch.stack(variances)

    def _samples(self, name: str, module: nn.Module, g_inp: Any, g_out: tuple[Tensor], rows: range) -> Tensor:
        picked = g_out[0][rows.start : rows.stop]
        return self._derivatives.param_mjp(name, module, g_inp, g_out, picked, sum_batch=False, subsampling=list(rows))


class _LinearMoments(_LayerMoments):
    """A linear layer on [N, F]: sums over samples are matrix products, and no per-sample gradient exists.

    With token axes between samples and features the square of a sum over tokens is needed, and chunks serve.
    """

    def __init__(self) -> None:
        super().__init__(LinearDerivatives(), PARAMETERS[nn.Linear])

    def weight(self, ext: Any, module: Any, g_inp: Any, g_out: tuple[Tensor], quantities: Any) -> tuple[Tensor, Tensor]:
        """(mean, variance), each [K, C, F]."""
        if g_out[0].ndim != 2:
            return self._moments("weight", ext, module, g_inp, g_out, quantities)
        _refuse_misuse(module, "weight", len(g_out[0]), sum(ext.sizes))
        deltas, inputs = g_out[0].to(ext.dtype), module.input0.to(ext.dtype)
        pairs = list(zip(deltas.split(ext.sizes), inputs.split(ext.sizes), strict=True))
        mean = torch.stack([d.T @ z / len(z) for d, z in pairs])
        second = torch.stack([(d * d).T @ (z * z) / len(z) for d, z in pairs])
        return mean, torch.addcmul(second, mean, mean, value=-1)


class _EmbeddingMoments(_LayerMoments):
    """An embedding: each index adds to its own row (BackPACK's one-hot codes are of torch's default type alone)."""

    def __init__(self) -> None:
        super().__init__(EmbeddingDerivatives(), PARAMETERS[nn.Embedding])

    def _samples(self, name: str, module: nn.Module, g_inp: Any, g_out: tuple[Tensor], rows: range) -> Tensor:
        picked = g_out[0][rows.start : rows.stop]
        deltas = picked.reshape(len(rows), -1, picked.shape[-1])
        indices = cast(Tensor, module.input0)[rows.start : rows.stop].reshape(len(rows), -1, 1)
        zeros = picked.new_zeros(len(rows), *cast(Tensor, module.weight).shape)
        return zeros.scatter_add(1, indices.expand_as(deltas), deltas)
