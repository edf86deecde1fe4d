"""Per-sample gradients of any head by ``torch.func``, and their moments.

For layers without a formula, and as an oracle for the faster routes.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fishr.grad_mode import ordinary, outside_inference_mode
from fishr.losses import Loss, per_sample_losses
from fishr.row_checks import check_rows
from fishr.statistics.chunked_moments import Chunking, chunked_moments
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.merge import moments_of_domains
from fishr.statistics.pure_forward import pure_forward, refuse_batch_statistics, refuse_module, twin
from fishr.statistics.twice_differentiable import has_recurrence
from fishr.types import Layout

# Elements of per-sample gradients that exist at a time (64 MiB in float32).
_CHUNK = 1 << 24


@outside_inference_mode()
def per_sample_gradients(
    head: nn.Module, features: Tensor, labels: Tensor, loss: Loss, layers: tuple[str, ...] | None = None
) -> Tensor:
    """Return the gradients of each sample's loss by the head's trainable parameters.

    Neither the head, its buffers nor the features change.

    Args:
        head: any module that treats the rows of its input independently.
        features: [N, ...] inputs of the head.
        layers: names of layers or parameters that the gradients are taken by; None: all.

    Returns:
        [N, P], loss/parameter, differentiable by features and all parameters.

    Raises:
        InputError: a batch norm layer in train mode, which mixes the samples, or a head that is not usable.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> per_sample_gradients(nn.Linear(3, 2), torch.randn(5, 3), torch.zeros(5).long(), CrossEntropy()).shape
        torch.Size([5, 8])
    """
    check_rows(features, labels)
    refuse_module(head)
    refuse_batch_statistics(head)
    features, labels = ordinary(features), ordinary(labels)
    layout, tensors = Layout.of(head, layers), _wide_tensors(head, features)
    return _gradients(twin(head), layout, tensors, features, labels, loss)


def functional_moments(
    head: nn.Module,
    features: Tensor,
    labels: Tensor,
    sizes: tuple[int, ...],
    loss: Loss,
    dtype: torch.dtype,
    layers: tuple[str, ...] | None = None,
) -> GradientMoments:
    """Return per-domain moments of the per-sample gradients, computed a chunk at a time and summed in ``dtype``."""
    layout, tensors = Layout.of(head, layers), _wide_tensors(head, features)
    head = twin(head)
    if layout.size * len(features) <= _CHUNK:
        # Few enough to keep for the backward pass.
        samples = _gradients(head, layout, tensors, features, labels, loss).to(dtype)
        mean, variance = moments_of_domains(samples, sizes)
        return GradientMoments(tuple(sizes), mean, variance, layout)

    def gradients(rows: Sequence[Tensor], shared: Sequence[Tensor]) -> Tensor:
        return _gradients(head, layout, dict(zip(tensors, shared, strict=True)), rows[0], rows[1], loss)

    plan = Chunking(gradients, tuple(sizes), max(1, _CHUNK // layout.size), dtype, random=True)
    mean, variance = chunked_moments(plan, [features, labels], list(tensors.values()))
    return GradientMoments(tuple(sizes), mean, variance, layout)


def _wide_tensors(head: nn.Module, features: Tensor) -> dict[str, Tensor]:
    """Return parameters and copies of buffers, as wide as the features and float32 at least."""
    wide = torch.promote_types(features.dtype, torch.float32) if features.is_floating_point() else torch.float32
    tensors = (*head.named_parameters(), *((name, buffer.clone()) for name, buffer in head.named_buffers()))
    return {
        name: tensor.to(torch.promote_types(tensor.dtype, wide)) if tensor.is_floating_point() else tensor
        for name, tensor in tensors
    }


def _gradients(
    head: nn.Module, layout: Layout, tensors: Mapping[str, Tensor], features: Tensor, labels: Tensor, loss: Loss
) -> Tensor:
    chosen = {name: tensors[name] for name in layout.names}
    others = {name: tensor for name, tensor in tensors.items() if name not in chosen}

    def loss_of_one(parameters: dict[str, Tensor], z: Tensor, label: Tensor) -> Tensor:
        logits = pure_forward(head, z.unsqueeze(0), {**others, **parameters})
        return per_sample_losses(loss, logits, label.unsqueeze(0)).sum()

    gradient = torch.func.grad(loss_of_one)

    def one_by_one() -> dict[str, Tensor]:
        samples = [gradient(chosen, z, label) for z, label in zip(features, labels, strict=True)]
        return {name: torch.stack([sample[name] for sample in samples]) for name in chosen}

    if has_recurrence(head):
        # torch has no batching rule for recurrent layers.
        gradients = one_by_one()
    else:
        try:
            gradients = torch.func.vmap(gradient, (None, 0, 0), randomness="different")(chosen, features, labels)
        except RuntimeError:
            # vmap refuses branches on values, and buffers written per sample.
            gradients = one_by_one()
    return torch.cat([gradients[name].reshape(len(features), -1) for name in chosen], 1)
