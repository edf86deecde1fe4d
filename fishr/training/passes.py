"""The featurizer's passes: inputs to features, and the features' gradient to that of its parameters.

Between the two the objective sees the features of the whole batch, so that a batch may go through the featurizer in
pieces, or be shared by ranks, and no penalty knows.
"""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from attrs import frozen
from torch import Tensor, nn

from fishr.training.compute import Compute
from fishr.training.optimizers import Gradients
from fishr.training.seeding import seeded

Featurize = Callable[[Tensor], Tensor]


@frozen(eq=False)
class Passed:
    """A batch's features, and the way back.

    Args:
        features: [N, ...], a leaf that requires grad where the featurizer does, float32 or wider.
        pull: from ∂loss/∂features, and a factor that it has on its way through the featurizer alone, to
            ∂loss/∂parameter of each parameter, None where there is none; call it once.
    """

    features: Tensor
    pull: Callable[[Tensor, float], Gradients]


def pass_through(
    featurizer: nn.Module, compute: Compute, inputs: Tensor, parameters: Sequence[Tensor], seed: int, call: Featurize
) -> Passed:
    """Features of a batch, in as many pieces as ``compute`` says.

    Args:
        featurizer: the module; its buffers, such as running means, are updated once.
        compute: precision, layout and pieces.
        inputs: [N, ...].
        parameters: what ``pull`` gives the gradients of.
        seed: of random layers, where there are several pieces; the second pass of each draws as its first did.
        call: computes what the featurizer does, such as its compiled form.

    Returns:
        The features and the way back.

    Example:
        >>> layer, inputs = nn.Linear(3, 2), torch.randn(4, 3)
        >>> whole = pass_through(layer, Compute(), inputs, [layer.weight], 0, layer)
        >>> halves = pass_through(layer, Compute(pieces=2), inputs, [layer.weight], 0, layer)
        >>> torch.allclose(whole.pull(torch.ones(4, 2), 1.0)[0], halves.pull(torch.ones(4, 2), 1.0)[0], atol=1e-6)
        True
    """
    if compute.channels_last and inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)

    def features_of(piece: Tensor) -> Tensor:
        with compute.products(), compute.autocast(piece.device):
            return call(piece)

    pieces = inputs.tensor_split(min(compute.pieces, len(inputs)))
    if len(pieces) == 1:
        return _whole(features_of(inputs), compute, parameters)

    with torch.no_grad():
        found = list[Tensor]()
        for index, piece in enumerate(pieces):
            with seeded(seed + 1 + index, piece.device):
                # A copy, because the featurizer may work in place, and the second pass reads the piece again.
                found.append(features_of(piece.clone()))
    kept = [buffer.detach().clone() for buffer in featurizer.buffers()]
    trained = any(parameter.requires_grad for parameter in featurizer.parameters())
    leaf = _leaf(torch.cat(found), trained)

    def pull(gradient: Tensor, scale: float) -> Gradients:
        total: Gradients = (None,) * len(parameters)
        rows = gradient.split([len(piece) for piece in pieces])
        for index, (piece, of_piece) in enumerate(zip(pieces, rows, strict=True)):
            with seeded(seed + 1 + index, piece.device):
                passed = _whole(features_of(piece), compute, parameters)
            total = added(total, passed.pull(of_piece, scale))
        for buffer, before in zip(featurizer.buffers(), kept, strict=True):
            buffer.data = before
        return total

    return Passed(leaf, pull)


def _whole(features: Tensor, compute: Compute, parameters: Sequence[Tensor]) -> Passed:
    def pull(gradient: Tensor, scale: float) -> Gradients:
        if not features.requires_grad:
            return (None,) * len(parameters)
        scaled = gradient if scale == 1 else gradient * scale
        with compute.products():
            grad = torch.autograd.grad(features, parameters, scaled.to(features.dtype), allow_unused=True)
        found = cast(Gradients, grad)
        return found if scale == 1 else tuple(None if g is None else g / scale for g in found)

    return Passed(_leaf(features.detach(), features.requires_grad), pull)


def _leaf(features: Tensor, trained: bool) -> Tensor:
    if not features.is_floating_point():
        return features
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.requires_grad_(trained)


def added(left: Gradients, right: Gradients) -> Gradients:
    """Sums, parameter by parameter, of gradients of which some may be None.

    Example:
        >>> added((torch.ones(1), None), (torch.ones(1), torch.ones(1)))
        (tensor([2.]), tensor([1.]))
    """
    return tuple(b if a is None else a if b is None else a + b for a, b in zip(left, right, strict=True))
