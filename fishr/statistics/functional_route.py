"""Per-sample gradients of any head by ``torch.func``: the obvious way, an oracle for the fast ones.

It holds the per-sample gradients of a whole domain, so it is for layers that BackPACK lacks and for tests.
"""

import torch
from torch import Tensor, nn

from fishr.errors import InputError
from fishr.losses import Loss, per_sample_losses
from fishr.statistics.merge import moments_of_samples
from fishr.statistics.twice_differentiable import twice_differentiable
from fishr.types import GradientMoments, Layout


def per_sample_gradients(head: nn.Module, features: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    """Gradients of each sample's loss with respect to the head's trainable parameters.

    Args:
        head: any module that treats the rows of its input independently.
        features: [N, ...] what the head reads.
        labels: what the loss reads.
        loss: per-sample loss.

    Returns:
        [N, P], loss/parameter, differentiable by features and head parameters.

    Raises:
        InputError: a batch norm layer in train mode, which mixes the samples.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> per_sample_gradients(nn.Linear(3, 2), torch.randn(5, 3), torch.zeros(5).long(), CrossEntropy()).shape
        torch.Size([5, 8])
    """
    refuse_batch_statistics(head)
    wide = torch.promote_types(features.dtype, torch.float32) if features.is_floating_point() else torch.float32
    tensors = {
        name: tensor.to(torch.promote_types(tensor.dtype, wide)) if tensor.is_floating_point() else tensor
        for name, tensor in (*head.named_parameters(), *head.named_buffers())
    }
    trainable = {name: tensors.pop(name) for name in Layout.of(head).names}

    def loss_of_one(parameters: dict[str, Tensor], z: Tensor, label: Tensor) -> Tensor:
        with twice_differentiable():
            logits = torch.func.functional_call(head, {**tensors, **parameters}, (z.unsqueeze(0),))
        return per_sample_losses(loss, logits, label.unsqueeze(0)).sum()

    gradient = torch.func.grad(loss_of_one)
    if has_recurrence(head):
        # torch has no batching rule for recurrent layers.
        samples = [gradient(trainable, z, label) for z, label in zip(features, labels, strict=True)]
        gradients = {name: torch.stack([sample[name] for sample in samples]) for name in trainable}
    else:
        gradients = torch.func.vmap(gradient, (None, 0, 0), randomness="different")(trainable, features, labels)
    return torch.cat([gradients[name].flatten(1) for name in trainable], 1)


def functional_moments(
    head: nn.Module, features: Tensor, labels: Tensor, sizes: tuple[int, ...], loss: Loss, dtype: torch.dtype
) -> GradientMoments:
    """Per-domain moments from the per-sample gradients themselves, in two passes.

    Args:
        head: any module that treats the rows of its input independently.
        features: [N, ...] what the head reads.
        labels: what the loss reads.
        sizes: samples of each domain, summing to N.
        loss: per-sample loss.
        dtype: in which sums over samples are taken.

    Returns:
        Moments, differentiable by features and head parameters.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> labels = torch.tensor([0, 1, 0, 1])
        >>> functional_moments(nn.Linear(3, 2), torch.randn(4, 3), labels, (2, 2), CrossEntropy(), torch.float32).count
        (2, 2)
    """
    domains = [
        moments_of_samples([per_sample_gradients(head, z, y, loss).to(dtype)])
        for z, y in zip(features.split(list(sizes)), labels.split(list(sizes)), strict=True)
    ]
    means, variances = zip(*domains, strict=True)
    return GradientMoments(tuple(sizes), torch.stack(means), torch.stack(variances), Layout.of(head))


def has_recurrence(head: nn.Module) -> bool:
    """Whether a layer of the head is recurrent.

    Example:
        >>> has_recurrence(nn.Sequential(nn.LSTM(3, 4))), has_recurrence(nn.Linear(3, 2))
        (True, False)
    """
    return any(isinstance(module, nn.RNNBase) for module in head.modules())


def refuse_batch_statistics(head: nn.Module) -> None:
    """Refuse a head whose batch norm reads batch statistics: samples mix, so that none has a gradient of its own.

    Example:
        >>> refuse_batch_statistics(nn.BatchNorm1d(3).eval())
    """
    for name, module in head.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):  # pyright: ignore[reportPrivateUsage]
            continue
        if module.training or module.running_mean is None:
            parameters = [f"{name}.{short}" if name else short for short, _ in module.named_parameters(recurse=False)]
            of = f" (parameters {', '.join(parameters)})" if parameters else ""
            raise InputError(
                f"head layer {name or 'itself'!r} of {type(module).__module__}.{type(module).__qualname__}{of}: "
                "batch statistics mix the samples, so that none has a gradient of its own; "
                "give the layer running statistics and put it in eval mode"
            )
