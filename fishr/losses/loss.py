"""The protocol of a per-sample loss, and what is asked of any of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fishr.compilation import uncompiled
from fishr.errors import InputError
from fishr.grad_mode import ordinary, outside_inference_mode, under_vmap


@runtime_checkable
class Loss(Protocol):
    """A per-sample loss: ``loss(logits, labels)`` is [N], and row n depends on sample n alone.

    Any such function is a loss. These methods are optional:

    - ``deltas(logits, labels)``: the derivative by the logits in closed form, [N, C];
    - ``check_labels(labels, outputs)``: refuses labels;
    - ``labeled(labels)``: which samples have a label, [N]; the others are left out of all means, sizes and scores;
    - ``outputs(classes)``: the number of head outputs for labels [N] of so many classes, by default one a class;
    - ``predictions(logits)``: [N], or [N, C] where each output is predicted on its own; by default the largest output,
      and None for a loss that predicts no class.

    Example:
        >>> def squared(logits, labels):
        ...     return (logits.squeeze(1) - labels) ** 2
        >>> isinstance(squared, Loss)
        True
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[N] losses."""
        ...


def check_labels(loss: Loss, labels: Tensor, outputs: int) -> None:
    """Refuse label values that are not valid for a loss; a loss without ``check_labels`` takes any."""
    check = getattr(loss, "check_labels", None)
    if check is not None:
        check(labels, outputs)


def outputs_of(loss: Loss, classes: int, labels: int | None = None) -> int:
    """Return the number of outputs that a loss takes: one for each label of a sample, by default one a class."""
    if labels is not None:
        return labels
    own = getattr(loss, "outputs", None)
    return classes if own is None else own(classes)


def predictions_of(loss: Loss, logits: Tensor) -> Tensor:
    """Return the predicted classes, by default [N], the largest output's; refuse a loss that predicts none."""
    if not predicts_classes(loss):
        raise InputError(f"loss: {loss_name(loss)} predicts no class, expected one of classes such as CrossEntropy()")
    return getattr(loss, "predictions", _largest)(logits)


def predicts_classes(loss: Loss) -> bool:
    """Return whether a loss predicts classes, so that there are accuracies."""
    return getattr(loss, "predictions", _largest) is not None


def accuracy_name(loss: Loss, labels: Tensor) -> str:
    """Return the name of the mean of ``shares_correct``: "accuracy", or "correct labels" of several a sample."""
    several = labels.ndim == 2 and predicts_classes(loss) and predictions_of(loss, labels[:1]).ndim == 2
    return "correct labels" if several else "accuracy"


def shares_correct(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the share of each sample's predictions that are right, [N], 0 or 1 for one class a sample.

    The class of soft labels is the most likely one. Of several labels a sample, each output counts on its own. NaN for
    a loss that predicts no class, and for one without ``predictions`` unless labels are class indices [N].
    """
    indices = labels.ndim == 1 and not labels.is_floating_point()
    if not predicts_classes(loss) or not (hasattr(loss, "predictions") or (indices and logits.shape[1] > 1)):
        return logits.new_full((len(logits),), torch.nan)
    predicted = predictions_of(loss, logits)
    if labels.numel() > predicted.numel():
        labels = labels.argmax(1)
    elif labels.is_floating_point():
        labels = labels.round()
    return (predicted == labels.reshape(predicted.shape)).reshape(len(labels), -1).to(logits.dtype).mean(1)


def labeled_rows(loss: Loss, labels: Tensor, sizes: Sequence[int]) -> tuple[Tensor | None, tuple[int, ...]]:
    """Return the indices [M] of the samples that have a label, None for all, and their number in each domain."""
    labeled = getattr(loss, "labeled", None)
    mask: Tensor | None = None if labeled is None else labeled(labels)
    return (None, tuple(sizes)) if mask is None else _rows_of(mask, tuple(sizes))


def labeled_in_domains(
    loss: Loss, labels: Mapping[str, Tensor], classes: int, columns: int | None
) -> dict[str, Tensor | None]:
    """Return the indices of each domain's samples that have a label, None for all; refuse labels not valid for a loss.

    ``classes`` and ``columns`` are as for ``outputs_of``.
    """
    rows = {name: labeled_rows(loss, own, (len(own),))[0] for name, own in labels.items()}
    check, outputs = getattr(loss, "check_labels", None), outputs_of(loss, classes, columns)
    for name, own in labels.items():
        try:
            if check is not None:
                check(own, outputs)
        except InputError as error:
            raise InputError(f"domain {name!r}: {error}") from None
    return rows


@uncompiled
def _rows_of(mask: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor | None, tuple[int, ...]]:
    if bool(mask.all()):
        return None, sizes
    return mask.nonzero().squeeze(1), tuple(int(part.sum()) for part in mask.cpu().split(list(sizes)))


def labeled_samples(loss: Loss, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and labels of the samples that have a label."""
    rows, _ = labeled_rows(loss, labels, (len(labels),))
    return (inputs, labels) if rows is None else (inputs[rows], labels[rows])


def loss_name(loss: Loss) -> str:
    """Return the name of a loss in messages."""
    return getattr(loss, "__name__", type(loss).__qualname__)


def _largest(logits: Tensor) -> Tensor:
    return logits.argmax(1)


def per_sample_losses(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each sample, [N]; refuse a loss that reduces over samples, which scales gradients by 1/N."""
    losses: Any = loss(logits, labels)
    if not isinstance(losses, Tensor):
        kind = type(losses).__qualname__
        raise InputError(f"loss: got a {kind} from {loss_name(loss)}, expected a tensor of one number a sample")
    if losses.shape != logits.shape[:1]:
        column = losses.ndim > 1 and losses.numel() == len(logits)
        remedy = "flatten it" if column else 'use CrossEntropy(), BinaryCrossEntropy() or reduction="none"'
        raise InputError(
            f"loss: got shape {tuple(losses.shape)} from {loss_name(loss)}, expected ({len(logits)},), one number a "
            f"sample; {remedy}"
        )
    return losses


@outside_inference_mode()
def loss_deltas(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Return δ = ∂ℓ/∂f [N, C], in closed form if the loss has one, else by autograd; differentiable by the logits."""
    closed_form = getattr(loss, "deltas", None)
    if closed_form is not None:
        return closed_form(logits, labels)
    if torch.compiler.is_compiling() or under_vmap():
        # Which pass this, but not torch.autograd.grad.
        return torch.func.grad(lambda outputs: per_sample_losses(loss, outputs, labels).sum())(logits)
    logits, labels = ordinary(logits), ordinary(labels)
    with torch.enable_grad():
        seen = logits if logits.requires_grad else logits.detach().requires_grad_()
        total = per_sample_losses(loss, seen, labels).sum()
        (deltas,) = torch.autograd.grad(total, [seen], create_graph=logits.requires_grad)
    return deltas
