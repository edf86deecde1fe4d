"""Per-domain gradient moments of a network's layers by a BackPACK extension, without BackPACK's hooks.

A forward pass records the input of each chosen layer and the place of its output in the graph. A backward pass gives
the gradients δ of the losses at these places and goes no deeper. The extension reduces δ and inputs to moments: a
linear layer takes two matrix products a domain, any other layer its per-sample gradients, a chunk at a time.
BackPACK's own hooks refuse in-place operations, as in residual networks, and keep every layer's output.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import torch
from backpack.core.derivatives.conv3d import Conv3DDerivatives
from backpack.core.derivatives.conv_transpose1d import ConvTranspose1DDerivatives
from backpack.core.derivatives.conv_transpose2d import ConvTranspose2DDerivatives
from backpack.core.derivatives.conv_transpose3d import ConvTranspose3DDerivatives
from backpack.core.derivatives.lstm import LSTMDerivatives
from backpack.core.derivatives.rnn import RNNDerivatives
from backpack.extensions.backprop_extension import FAIL_SILENT
from backpack.extensions.firstorder.base import FirstOrderBackpropExtension, FirstOrderModuleExtension
from backpack.extensions.module_extension import ModuleExtension
from torch import Tensor, nn

from fishr.losses import Loss, per_sample_losses
from fishr.statistics.backpack_limits import (
    PARAMETERS,
    layer_kind,
    no_formula,
    refuse_missing,
    refuse_second_use,
    refuse_unsupported,
)
from fishr.statistics.chunked_moments import Chunking, chunked_moments
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.layer_gradients import (
    convolution_gradients,
    embedding_gradients,
    linear_gradients,
    normalization_gradients,
    outer_factors,
    patch_elements,
    places,
    shift_gradients,
)
from fishr.statistics.merge import moments_of_domains
from fishr.statistics.outer_moments import FEW_PLACES, outer_moments
from fishr.statistics.pure_forward import checked_rows, eagerly, twin
from fishr.statistics.recorded_calls import Recording
from fishr.statistics.twice_differentiable import double_backward_kernels
from fishr.types import Layout

SAVEFIELD = "domain_moments"
# Elements of per-sample gradients, and of the patches they are made from, that exist at a time: a CPU then reuses
# memory in its cache; a GPU wants few large kernels.
_CHUNK = {"cpu": 1 << 21, "cuda": 1 << 26}
# Least output channels of a matrix product, unless the layer has fewer: each block unfolds the patches again.
_CHANNELS = 64

_DERIVATIVES: dict[type[nn.Module], Callable[[], Any]] = {
    nn.Conv3d: Conv3DDerivatives,
    nn.ConvTranspose1d: ConvTranspose1DDerivatives,
    nn.ConvTranspose2d: ConvTranspose2DDerivatives,
    nn.ConvTranspose3d: ConvTranspose3DDerivatives,
    nn.RNN: RNNDerivatives,
    nn.LSTM: LSTMDerivatives,
}
_FORMULAS: dict[type[nn.Module], Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    nn.Linear: linear_gradients,
    nn.Conv1d: convolution_gradients,
    nn.Conv2d: convolution_gradients,
    nn.Embedding: embedding_gradients,
}


def backpack_moments(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss,
    dtype: torch.dtype,
    layers: tuple[str, ...] | None = None,
) -> GradientMoments:
    """Return per-domain moments of a head's per-sample gradients, summed over samples in ``dtype``."""
    layout, graph = Layout.of(head, layers), torch.is_grad_enabled()
    refuse_unsupported(head, layout.names, graph)
    copied = twin(head)
    recording, features = Recording(copied, layout), features if graph else features.detach()
    with torch.enable_grad():
        with eagerly(copied), double_backward_kernels(copied), recording:
            # A copy, because the first layer may write into it.
            logits = checked_rows("head", copied, copied(features.clone()), len(features))
        total = per_sample_losses(loss, logits, labels).sum()
    return recorded_moments(recording, features, total, sizes, dtype)


def recorded_moments(
    recording: Recording, features: Tensor, total: Tensor, sizes: tuple[int, ...], dtype: torch.dtype
) -> GradientMoments:
    """Return the moments of the layers of a recorded pass from ``features`` to the sum of the losses."""
    module, layout, calls = recording.module, recording.layout, recording.calls
    refuse_second_use(module, layout.names, total, features)
    recording.refuse_changes()
    graph, places = torch.is_grad_enabled(), [place for call in calls.values() for place in call.places]
    with torch.enable_grad(), warnings.catch_warnings():
        # The hooks of a head that the user extended warn too.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        # The pass stops at the first chosen layer, and never touches ``.grad``.
        found = ()
        if places:
            found = torch.autograd.grad(total, places, create_graph=graph, allow_unused=True)
    # None where the loss does not depend on an output.
    by_place, deltas = iter(cast(Sequence[Tensor | None], found)), dict[str, Tensor | None]()
    for name, call in calls.items():
        deltas[name], *by_states = [next(by_place) for _ in call.places]
        if any(delta is not None for delta in by_states):
            reason = "the loss reads its states beside its output, for which BackPACK has no per-sample gradient"
            raise no_formula(module.get_submodule(name), reason)
    extension, columns, samples = DomainMoments(sizes, dtype), dict[str, Sequence[Tensor]](), dict[str, Tensor]()
    for name in layout.names:
        of, _, short = name.rpartition(".")
        if (delta := deltas.get(of)) is None:
            refuse_missing(module, name)
        given = module.get_submodule(of), short, delta, calls[of].read
        if (small := extension.samples(*given)) is None:
            columns[name] = [moments.flatten(1) for moments in extension.moments(*given)]
        else:
            samples[name] = small.flatten(1)
    if samples:
        moments = moments_of_domains(torch.cat([*samples.values()], 1), sizes)
        by_name = (part.split([small.shape[1] for small in samples.values()], 1) for part in moments)
        columns |= zip(samples, zip(*by_name, strict=True), strict=True)
    mean, variance = (torch.cat([columns[name][i] for name in layout.names], 1) for i in (0, 1))
    return GradientMoments(tuple(sizes), mean, variance, layout)


class DomainMoments(FirstOrderBackpropExtension):
    """First-order extension that saves (mean, variance), each [K, *shape], as ``parameter.domain_moments``."""

    # It expects the sum of unscaled per-sample losses. BackPACK's hooks can drive it as well.

    def __init__(self, sizes: tuple[int, ...], dtype: torch.dtype | None = None) -> None:
        layers: dict[type[nn.Module], ModuleExtension] = {kind: _LayerMoments(own) for kind, own in PARAMETERS.items()}
        # Layers without a formula get no moments.
        super().__init__(SAVEFIELD, layers, fail_mode=FAIL_SILENT)
        self.sizes = sizes
        self.dtype = dtype

    def samples(self, layer: nn.Module, name: str, deltas: Tensor, read: tuple[Tensor, ...]) -> Tensor | None:
        """Return the gradients [N, *shape] by a bias or a scale, which are no larger than δ; None for other weights."""
        if len(deltas) != (samples := sum(self.sizes)):
            reason = f"its output has {len(deltas)} rows for {samples} samples, so that rows are not samples"
            raise no_formula(layer, reason)
        kind = cast(Any, layer_kind(layer))
        if name == "bias":
            found = shift_gradients(layer, deltas)
        elif kind in _DERIVATIVES or kind in _FORMULAS:
            return None
        else:
            found = normalization_gradients(layer, deltas, read[0])
        return found.to(self.dtype or found.dtype)

    def moments(self, layer: nn.Module, name: str, deltas: Tensor, read: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return (mean, variance) of one parameter; of a large one by blocks of output channels."""
        sizes, dtype = self.sizes, self.dtype or deltas.dtype
        if (samples := self.samples(layer, name, deltas, read)) is not None:
            return moments_of_domains(samples, sizes)
        kind, shape = layer_kind(layer), getattr(layer, name).shape
        chunk = _CHUNK.get(deltas.device.type, _CHUNK["cuda"])
        plain = kind in (nn.Linear, nn.Conv1d, nn.Conv2d) and getattr(layer, "groups", 1) == 1
        if plain and places(layer, deltas) <= FEW_PLACES:
            means, variances = outer_moments(*outer_factors(layer, deltas.to(dtype), read[0].to(dtype)), sizes)
            return means.unflatten(2, shape[1:]), variances.unflatten(2, shape[1:])
        if kind in _DERIVATIVES:
            formula = partial(_backpack_gradients, _DERIVATIVES[kind](), name)
        else:
            formula = _FORMULAS[cast(Any, kind)]
        blocks, elements = [deltas], prod(shape)
        if plain:
            width = prod(shape[1:])
            outputs = min(shape[0], max(_CHANNELS, chunk // (max(sizes) * width)))
            blocks, elements = list(deltas.split(outputs, -1 if kind is nn.Linear else 1)), outputs * width
        step = max(1, chunk // max(elements, patch_elements(layer, deltas, read[0])))
        plan = Chunking(lambda rows, _: formula(layer, *rows), sizes, step, dtype)
        means, variances = zip(*(chunked_moments(plan, [block, *read]) for block in blocks), strict=True)
        return torch.cat(means, 1), torch.cat(variances, 1)


class _LayerMoments(FirstOrderModuleExtension):
    def __init__(self, names: tuple[str, ...]) -> None:
        for name in names:
            setattr(self, name, partial(self._moments, name))
        super().__init__(params=list(names))

    def _moments(
        self, name: str, ext: DomainMoments, layer: Any, g_inp: Any, g_out: tuple[Tensor], _: Any
    ) -> tuple[Tensor, Tensor]:
        read = (layer.input0, layer.output) if type(layer) in (nn.RNN, nn.LSTM) else (layer.input0,)
        return ext.moments(layer, name, g_out[0], read)


def _backpack_gradients(
    derivatives: Any, name: str, layer: nn.Module, deltas: Tensor, inputs: Tensor, output: Tensor | None = None
) -> Tensor:
    seen: Any = copy.copy(layer)
    seen.input0, seen.output = inputs, deltas if output is None else output
    return derivatives.param_mjp(name, seen, None, (deltas,), deltas, sum_batch=False)
