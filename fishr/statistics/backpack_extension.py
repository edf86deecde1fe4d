"""The BackPACK extension that reduces a layer's per-sample gradients to their moments in each domain.

A linear layer takes two matrix products a domain, any other layer its samples' gradients, some at a time. BackPACK's
derivatives make these where they are the fastest way. The only module of statistics that knows BackPACK.
"""

import copy
from collections.abc import Callable, Mapping
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

from fishr.statistics.backpack_limits import PARAMETERS, layer_kind, refuse_other_rows
from fishr.statistics.chunked_moments import Chunking, chunked_moments
from fishr.statistics.merge import moments_of_samples
from fishr.statistics.sample_gradients import (
    convolution_gradients,
    embedding_gradients,
    linear_gradients,
    normalization_gradients,
    patch_elements,
    shift_gradients,
)

SAVEFIELD = "domain_moments"
# Elements of per-sample gradients, and of the patches they are made from, that are there at a time: a CPU then reuses
# memory that is in its cache; a GPU wants few large kernels.
_CHUNK = {"cpu": 1 << 21, "cuda": 1 << 26}
# Output channels that a matrix product has at least, unless the layer has fewer: patches are made again for each block.
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


class DomainMoments(FirstOrderBackpropExtension):
    """Leaves (mean, variance) of the per-sample gradients, each [K, *shape], as ``parameter.domain_moments``.

    The loss is the sum of the per-sample losses, unscaled; mean in loss/parameter, variance in (loss/parameter)².
    ``gradient_moments`` is the way to use it, which checks that rows are samples and that every parameter has a
    statistic; by itself it is for modules that are extended already.

    Args:
        sizes: samples of each domain, summing to the rows of each layer.
        dtype: in which sums over samples are taken; None: of the gradients.
        parameters: which parameters of which layers, by exact class; by default all that there is a formula for.

    Example:
        >>> from backpack import backpack, extend
        >>> layer = extend(nn.Linear(3, 2))
        >>> logits = layer(torch.randn(5, 3, requires_grad=True))
        >>> total = nn.functional.cross_entropy(logits, torch.zeros(5).long(), reduction="sum")
        >>> with backpack(DomainMoments(sizes=(2, 3))):
        ...     total.backward()
        >>> [tuple(part.shape) for part in layer.weight.domain_moments]
        [(2, 2, 3), (2, 2, 3)]

    Source:
        BackPACK's interface for first-order extensions (Dangel, Kunstner and Hennig, ICLR 2020).
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        dtype: torch.dtype | None = None,
        parameters: Mapping[type[nn.Module], tuple[str, ...]] = PARAMETERS,
    ) -> None:
        layers: dict[type[nn.Module], ModuleExtension] = {
            kind: _LayerMoments(names) for kind, names in parameters.items()
        }
        # What is asked for and does not come back is told by who asks, by name.
        super().__init__(SAVEFIELD, layers, fail_mode=FAIL_SILENT)
        self.sizes = sizes
        self.dtype = dtype


class _LayerMoments(FirstOrderModuleExtension):
    """The moments of some parameters of one kind of layer."""

    def __init__(self, names: tuple[str, ...]) -> None:
        for name in names:
            setattr(self, name, partial(self._moments, name))
        super().__init__(params=list(names))

    def _moments(
        self, name: str, ext: DomainMoments, layer: Any, g_inp: Any, g_out: tuple[Tensor], _: Any
    ) -> tuple[Tensor, Tensor]:
        (deltas, *_rest), dtype = g_out, ext.dtype or g_out[0].dtype
        refuse_other_rows(layer, len(deltas), sum(ext.sizes))
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
    """(mean, variance), each [K, ...], of one parameter; of a large one by blocks of output channels in their order."""
    kind, shape = layer_kind(layer), getattr(layer, name).shape
    if kind is nn.Linear and deltas.ndim == 2 and name == "weight":
        return [_matrix_product_moments(deltas.to(dtype), inputs.to(dtype), sizes)]
    if name == "bias" and deltas.shape[1:] == shape:
        means, variances = zip(*(moments_of_samples([part]) for part in deltas.to(dtype).split(sizes)), strict=True)
        return [(torch.stack(means), torch.stack(variances))]
    if name == "bias":
        shift = Chunking(
            lambda rows, _: shift_gradients(layer, rows[0]), sizes, max(1, _chunk(deltas) // deltas[0].numel()), dtype
        )
        return [chunked_moments(shift, [deltas])]
    if kind in _DERIVATIVES:
        formula = partial(_backpack_gradients, _DERIVATIVES[kind](), name)
    else:
        formula = _FORMULAS.get(cast(Any, kind), normalization_gradients)
    blocks, elements = [deltas], prod(shape)
    if kind in (nn.Linear, nn.Conv1d, nn.Conv2d) and getattr(layer, "groups", 1) == 1:
        width = prod(shape[1:])
        outputs = min(shape[0], max(_CHANNELS, _chunk(deltas) // (max(sizes) * width)))
        blocks, elements = list(deltas.split(outputs, -1 if kind is nn.Linear else 1)), outputs * width
    step = max(1, _chunk(deltas) // max(elements, patch_elements(layer, deltas, inputs)))
    plan = Chunking(lambda rows, _: formula(layer, *rows), sizes, step, dtype)
    read = [inputs] if output is None else [inputs, output]
    return [chunked_moments(plan, [block, *read]) for block in blocks]


def _chunk(like: Tensor) -> int:
    return _CHUNK.get(like.device.type, _CHUNK["cuda"])


def _matrix_product_moments(deltas: Tensor, inputs: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A linear layer on [N, F]: sums over samples are matrix products, and no per-sample gradient exists."""
    pairs = list(zip(deltas.split(sizes), inputs.split(sizes), strict=True))
    mean = torch.stack([d.T @ z / len(z) for d, z in pairs])
    second = torch.stack([(d * d).T @ (z * z) / len(z) for d, z in pairs])
    return mean, torch.addcmul(second, mean, mean, value=-1)


def _backpack_gradients(
    derivatives: Any, name: str, layer: nn.Module, deltas: Tensor, inputs: Tensor, output: Tensor | None = None
) -> Tensor:
    seen: Any = copy.copy(layer)
    seen.input0, seen.output = inputs, deltas if output is None else output
    return derivatives.param_mjp(name, seen, None, (deltas,), deltas, sum_batch=False)
