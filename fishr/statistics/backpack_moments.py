"""Per-domain gradient moments of a network's layers by a BackPACK extension, without BackPACK's hooks.

A forward pass records the input of each chosen layer and the place of its output in the graph. A backward pass gives
the gradients δ of the losses at these places and goes no deeper. The extension reduces δ and inputs to moments: a
linear layer takes two matrix products a domain, any other layer its per-sample gradients, a chunk at a time.
BackPACK's own hooks refuse in-place operations, as in residual networks, and keep every layer's output.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import torch
from attrs import frozen
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
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

from fishr.errors import InputError
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
from fishr.statistics.layer_gradients import (
    convolution_gradients,
    embedding_gradients,
    linear_gradients,
    normalization_gradients,
    patch_elements,
    shift_gradients,
)
from fishr.statistics.merge import moments_of_samples
from fishr.statistics.pure_forward import checked_rows, eagerly, twin
from fishr.statistics.twice_differentiable import double_backward_kernels
from fishr.types import GradientMoments, Layout

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


@frozen(eq=False)
class _Call:
    """A layer's input and the place of its output in the graph; of a recurrent layer also the output and its states."""

    inputs: Tensor
    edge: GradientEdge
    output: Tensor | None
    states: list[GradientEdge]
    versions: tuple[int, ...]

    @property
    def overwritten(self) -> bool:
        read = (self.inputs,) if self.output is None else (self.inputs, self.output)
        return self.versions != tuple(tensor._version for tensor in read)


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
    layout = Layout.of(head, layers)
    graph = torch.is_grad_enabled()
    refuse_unsupported(head, layout.names, graph)
    copied = twin(head)
    with torch.enable_grad():
        calls, total = _forward(copied, layout.names, features if graph else features.detach(), labels, loss)
        edges = [call.edge for call in calls.values()]
        states = [(name, edge) for name, call in calls.items() for edge in call.states]
        with warnings.catch_warnings():
            # The hooks of a head that the user extended warn too.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            # The pass stops at the first chosen layer, and never touches ``.grad``.
            inputs = [*edges, *(edge for _, edge in states)]
            found = torch.autograd.grad(total, inputs, create_graph=graph, allow_unused=True) if inputs else ()
    # None where the loss does not depend on an output.
    by_output, by_state = (cast(Sequence[Tensor | None], part) for part in (found[: len(edges)], found[len(edges) :]))
    for (name, _), delta in zip(states, by_state, strict=True):
        if delta is not None:
            reason = "the loss reads its states beside its output, for which BackPACK has no per-sample gradient"
            raise no_formula(copied.get_submodule(name), reason)
    reduced = dict[str, tuple[Tensor, Tensor]]()
    for (of, call), delta in zip(calls.items(), by_output, strict=True):
        if delta is not None:
            names = tuple(name for name in layout.names if name.rpartition(".")[0] == of)
            reduced |= _reduced(copied.get_submodule(of), names, call, delta, sizes, dtype)
    if missing := [name for name in layout.names if name not in reduced]:
        refuse_missing(head, missing[0])
    columns = [reduced[name] for name in layout.names]
    mean, variance = (torch.cat([part[i].flatten(1) for part in columns], 1) for i in (0, 1))
    return GradientMoments(tuple(sizes), mean, variance, layout)


def _forward(
    copied: nn.Module, parameters: tuple[str, ...], features: Tensor, labels: Tensor, loss: Loss
) -> tuple[dict[str, _Call], Tensor]:
    """Return one call of each chosen layer that was reached, and the sum of the losses."""
    calls, again = dict[str, _Call](), list[nn.Module]()

    def record(name: str, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        out = output[0] if isinstance(output, tuple) else output
        if not out.requires_grad:
            return
        if name in calls:
            again.append(layer)
        read = args[0] if args else next(iter(kwargs.values()))
        recurrent = isinstance(layer, nn.RNNBase)
        states = [get_gradient_edge(state) for state in tree_leaves(output[1:])] if recurrent else []
        versions = (read._version, out._version) if recurrent else (read._version,)
        calls[name] = _Call(read, get_gradient_edge(out), out if recurrent else None, states, versions)

    # Before all other hooks, to see what the layer itself computes.
    handles = [
        copied.get_submodule(name).register_forward_hook(partial(record, name), prepend=True, with_kwargs=True)
        for name in dict.fromkeys(name.rpartition(".")[0] for name in parameters)
    ]
    with eagerly(copied), double_backward_kernels(copied):
        # A copy, because the first layer may write into it.
        logits = checked_rows("head", copied, copied(features.clone()), len(features))
        total = per_sample_losses(loss, logits, labels).sum()
    for handle in handles:
        handle.remove()
    refuse_second_use(copied, parameters, total, features)
    if again:
        reason = "it is called more than once in a forward pass; its per-sample gradient is not that of one call"
        raise no_formula(again[0], reason)
    for parameter in parameters:
        name, _, short = parameter.rpartition(".")
        # The gradient by a bias needs δ alone.
        if short != "bias" and name in calls and calls[name].overwritten:
            kind = type(copied.get_submodule(name)).__qualname__
            raise InputError(
                f"layer {kind}: its input is overwritten in place later in the forward pass, so that torch has no "
                "gradient by its weights; give the later operation a copy"
            )
    return calls, total


def _reduced(
    layer: nn.Module, names: tuple[str, ...], call: _Call, delta: Tensor, sizes: tuple[int, ...], dtype: torch.dtype
) -> dict[str, tuple[Tensor, Tensor]]:
    """Run the extension on one layer and return its results by the parameters' names, leaving none on them."""
    short = {name: name.rpartition(".")[2] for name in names}
    # BackPACK's forward hook would set these.
    seen: Any = layer
    seen.input0, seen.output = call.inputs, delta if call.output is None else call.output
    try:
        DomainMoments(sizes, dtype, {type(layer): tuple(short.values())})(layer, (), (delta,))  # pyright: ignore
        return {name: getattr(getattr(layer, own), SAVEFIELD) for name, own in short.items()}
    finally:
        del seen.input0, seen.output
        for own in short.values():
            if hasattr(getattr(layer, own), SAVEFIELD):
                delattr(getattr(layer, own), SAVEFIELD)


class DomainMoments(FirstOrderBackpropExtension):
    """First-order extension that saves (mean, variance), each [K, *shape], as ``parameter.domain_moments``."""

    # It expects the sum of unscaled per-sample losses. BackPACK's hooks can drive it as well.

    def __init__(
        self,
        sizes: tuple[int, ...],
        dtype: torch.dtype | None = None,
        parameters: Mapping[type[nn.Module], tuple[str, ...]] = PARAMETERS,
    ) -> None:
        layers: dict[type[nn.Module], ModuleExtension] = {kind: _LayerMoments(own) for kind, own in parameters.items()}
        # The caller reports a missing statistic by its parameter's name.
        super().__init__(SAVEFIELD, layers, fail_mode=FAIL_SILENT)
        self.sizes = sizes
        self.dtype = dtype


class _LayerMoments(FirstOrderModuleExtension):
    def __init__(self, names: tuple[str, ...]) -> None:
        for name in names:
            setattr(self, name, partial(self._moments, name))
        super().__init__(params=list(names))

    def _moments(
        self, name: str, ext: DomainMoments, layer: Any, g_inp: Any, g_out: tuple[Tensor], _: Any
    ) -> tuple[Tensor, Tensor]:
        (deltas, *_rest), dtype = g_out, ext.dtype or g_out[0].dtype
        if len(deltas) != (samples := sum(ext.sizes)):
            reason = f"its output has {len(deltas)} rows for {samples} samples, so that rows are not samples"
            raise no_formula(layer, reason)
        inputs, output = layer.input0, layer.output if type(layer) in (nn.RNN, nn.LSTM) else None
        blocks = _parameter_moments(layer, name, deltas, inputs, output, ext.sizes, dtype)
        shape = (len(ext.sizes), *getattr(layer, name).shape)
        mean, variance = (torch.cat([block[i].flatten(1) for block in blocks], 1).view(shape) for i in (0, 1))
        return mean, variance


def _parameter_moments(
    layer: nn.Module,
    name: str,
    deltas: Tensor,
    inputs: Tensor,
    output: Tensor | None,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
) -> list[tuple[Tensor, Tensor]]:
    """Return (mean, variance), each [K, ...], of one parameter; of a large one by blocks of output channels."""
    kind, shape = layer_kind(layer), getattr(layer, name).shape
    chunk = _CHUNK.get(deltas.device.type, _CHUNK["cuda"])
    if kind is nn.Linear and deltas.ndim == 2 and name == "weight":
        # On [N, F] the sums over samples are matrix products; no per-sample gradient exists.
        pairs = list(zip(deltas.to(dtype).split(sizes), inputs.to(dtype).split(sizes), strict=True))
        mean = torch.stack([d.T @ z / len(z) for d, z in pairs])
        second = torch.stack([(d * d).T @ (z * z) / len(z) for d, z in pairs])
        return [(mean, torch.addcmul(second, mean, mean, value=-1))]
    if name == "bias" and deltas.shape[1:] == shape:
        means, variances = zip(*(moments_of_samples([part]) for part in deltas.to(dtype).split(sizes)), strict=True)
        return [(torch.stack(means), torch.stack(variances))]
    if name == "bias":
        step = max(1, chunk // deltas[0].numel())
        plan = Chunking(lambda rows, _: shift_gradients(layer, rows[0]), sizes, step, dtype)
        return [chunked_moments(plan, [deltas])]
    if kind in _DERIVATIVES:
        formula = partial(_backpack_gradients, _DERIVATIVES[kind](), name)
    else:
        formula = _FORMULAS.get(cast(Any, kind), normalization_gradients)
    blocks, elements = [deltas], prod(shape)
    if kind in (nn.Linear, nn.Conv1d, nn.Conv2d) and getattr(layer, "groups", 1) == 1:
        width = prod(shape[1:])
        outputs = min(shape[0], max(_CHANNELS, chunk // (max(sizes) * width)))
        blocks, elements = list(deltas.split(outputs, -1 if kind is nn.Linear else 1)), outputs * width
    step = max(1, chunk // max(elements, patch_elements(layer, deltas, inputs)))
    plan = Chunking(lambda rows, _: formula(layer, *rows), sizes, step, dtype)
    read = [inputs] if output is None else [inputs, output]
    return [chunked_moments(plan, [block, *read]) for block in blocks]


def _backpack_gradients(
    derivatives: Any, name: str, layer: nn.Module, deltas: Tensor, inputs: Tensor, output: Tensor | None = None
) -> Tensor:
    seen: Any = copy.copy(layer)
    seen.input0, seen.output = inputs, deltas if output is None else output
    return derivatives.param_mjp(name, seen, None, (deltas,), deltas, sum_batch=False)
