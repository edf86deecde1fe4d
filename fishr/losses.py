"""Per-sample losses with their derivative by the logits in closed form.

Gradient statistics are of each sample's unscaled loss, so a loss here never averages over samples.
"""

from typing import Any, Protocol, runtime_checkable

import torch
from attrs import frozen
from torch import Tensor
from torch.nn import functional

from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.grad_mode import ordinary, outside_inference_mode


@runtime_checkable
class Loss(Protocol):
    """A per-sample loss: ``loss(logits, labels)`` is [N], and row n depends on sample n alone.

    Any such function is a loss. These methods are optional: ``deltas(logits, labels)``, the derivative by the logits in
    closed form; ``check_labels(labels, outputs)`` refuses label values; ``outputs(classes)`` and
    ``predictions(logits)`` are used by training, by default one output a class and the largest output.

    Example:
        >>> def squared(logits, labels):
        ...     return (logits.squeeze(1) - labels) ** 2
        >>> isinstance(squared, Loss)
        True
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[N] losses."""
        ...


@traceable
@frozen
class CrossEntropy:
    """Softmax cross-entropy, in nats: ℓ_n = logsumexp(f_n) − f_n[y_n].

    Raises:
        InputError: When called on a single output, or on labels that are not [N] whole numbers from 0 to C - 1; the
            values of labels on a GPU are not checked.

    Example:
        >>> CrossEntropy()(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor([1.3863, 1.3863])
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses [N] of logits [N, C], C ≥ 2, and class indices [N]."""
        self._check(logits, labels)
        return torch.logsumexp(logits, 1) - logits.gather(1, labels.unsqueeze(1)).squeeze(1)

    def deltas(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return δ = ∂ℓ/∂f = softmax(f) − onehot(y), [N, C]."""
        self._check(logits, labels)
        ones = torch.ones((), dtype=logits.dtype, device=logits.device).expand(len(logits), 1)
        return logits.softmax(1).scatter_add(1, labels.unsqueeze(1), -ones)

    def outputs(self, classes: int) -> int:
        """Return the number of head outputs for so many classes."""
        return classes

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the most likely class, [N]."""
        return logits.argmax(1)

    def check_labels(self, labels: Tensor, outputs: int) -> None:
        """Refuse class indices [N] outside 0 to C - 1, with the remedy."""
        lowest, highest = _bounds(labels)
        if lowest >= 0 and highest < outputs:
            return
        if lowest < 0:
            remedy = (
                "to leave samples out of the loss, use "
                f'torch.nn.CrossEntropyLoss(reduction="none", ignore_index={lowest}) in place of CrossEntropy()'
            )
        elif lowest > 0 and highest == outputs:
            remedy = "if they start at 1, subtract 1"
        else:
            remedy = "number the classes from 0, or give the head more outputs"
        raise InputError(
            f"cross-entropy: got labels from {lowest} to {highest}, expected whole numbers from 0 to {outputs - 1}, "
            f"for {outputs} outputs; {remedy}"
        )

    def _check(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise InputError(
                f"cross-entropy: got logits of shape {tuple(logits.shape)}, expected [N, C] with C ≥ 2; "
                "for a head with a single output use BinaryCrossEntropy()"
            )
        if labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
            raise InputError(
                f"cross-entropy: got labels of shape {tuple(labels.shape)} and type {labels.dtype}, "
                f"expected [{len(logits)}] and torch.int64"
            )
        if _can_be_read(labels):
            self.check_labels(labels, logits.shape[1])


@traceable
@frozen
class BinaryCrossEntropy:
    """Logistic loss, in nats, summed over the outputs: ℓ_n = Σ_c softplus(f_nc) − y_nc·f_nc.

    Raises:
        InputError: When called on labels that do not have the logits' shape or are outside 0 to 1; the values of labels
            on a GPU are not checked.

    Example:
        >>> BinaryCrossEntropy()(torch.zeros(2, 1), torch.tensor([0, 1]))
        tensor([0.6931, 0.6931])
    """

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses [N] of logits [N, C] and targets [N] (for C = 1) or [N, C] from 0 to 1."""
        targets = self._targets(logits, labels)
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1)

    def deltas(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return δ = ∂ℓ/∂f = σ(f) − y, [N, C]."""
        return logits.sigmoid() - self._targets(logits, labels)

    def outputs(self, classes: int) -> int:
        """Return 1, the number of head outputs for two classes; refuse more classes."""
        if classes != 2:
            raise InputError(f"binary cross-entropy: got {classes} classes, expected 2; use CrossEntropy()")
        return 1

    def predictions(self, logits: Tensor) -> Tensor:
        """Return [N], class 1 where the single output is positive; [N, C] for several outputs, each on its own."""
        return (logits.squeeze(1) > 0).long()

    def check_labels(self, labels: Tensor, outputs: int) -> None:
        """Refuse targets [N] or [N, C] outside 0 to 1, with the remedy, for any number of outputs."""
        lowest, highest = _bounds(labels)
        if lowest >= 0 and highest <= 1:
            return
        values = torch.func.debug_unwrap(labels).unique().tolist()
        remedy = "map them to these, or use CrossEntropy() for more classes"
        if len(values) == 2:
            remedy = f"use (labels == {values[1]}).long()"
        raise InputError(
            f"binary cross-entropy: got labels from {lowest} to {highest}, expected 0 and 1, or probabilities between "
            f"them; {remedy}"
        )

    def _targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        column = labels.unsqueeze(1) if labels.ndim == 1 else labels
        if logits.ndim != 2 or column.shape != logits.shape:
            raise InputError(
                f"binary cross-entropy: got labels of shape {tuple(labels.shape)} for logits of shape "
                f"{tuple(logits.shape)}, expected one label per output"
            )
        if _can_be_read(labels):
            self.check_labels(labels, logits.shape[1])
        return column.to(logits.dtype)


def check_labels(loss: Loss, labels: Tensor, outputs: int) -> None:
    """Refuse label values that are not valid for a loss; a loss without ``check_labels`` takes any."""
    check = getattr(loss, "check_labels", None)
    if check is not None:
        check(labels, outputs)


def outputs_of(loss: Loss, classes: int) -> int:
    """Return the number of outputs that a loss takes for so many classes, by default one each."""
    own = getattr(loss, "outputs", None)
    return classes if own is None else own(classes)


def predictions_of(loss: Loss, logits: Tensor) -> Tensor:
    """Return the predicted classes [N], by default the largest output's."""
    own = getattr(loss, "predictions", None)
    return logits.argmax(1) if own is None else own(logits)


def _can_be_read(labels: Tensor) -> bool:
    """Return whether reading labels waits for no device and breaks no compiled graph."""
    return labels.device.type == "cpu" and not torch.compiler.is_compiling()


def _bounds(labels: Tensor) -> tuple[float, float]:
    """Return the smallest and largest value, also under torch.func's transforms; 0 and 0 without labels."""
    values = torch.func.debug_unwrap(labels)
    if not values.numel():
        return 0, 0
    lowest, highest = values.aminmax()
    return lowest.item(), highest.item()


def per_sample_losses(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each sample, [N]; refuse a loss that reduces over samples, which scales gradients by 1/N."""
    losses: Any = loss(logits, labels)
    name = getattr(loss, "__name__", type(loss).__qualname__)
    if not isinstance(losses, Tensor):
        kind = type(losses).__qualname__
        raise InputError(f"loss: got a {kind} from {name}, expected a tensor of one number a sample")
    if losses.shape != logits.shape[:1]:
        column = losses.ndim > 1 and losses.numel() == len(logits)
        remedy = "flatten it" if column else 'use CrossEntropy(), BinaryCrossEntropy() or reduction="none"'
        raise InputError(
            f"loss: got shape {tuple(losses.shape)} from {name}, expected ({len(logits)},), one number a sample; "
            f"{remedy}"
        )
    return losses


@outside_inference_mode()
def loss_deltas(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """Return δ = ∂ℓ/∂f [N, C], in closed form if the loss has one, else by autograd; differentiable by the logits."""
    closed_form = getattr(loss, "deltas", None)
    if closed_form is not None:
        return closed_form(logits, labels)
    if torch.compiler.is_compiling():
        # Which traces this, but not torch.autograd.grad.
        return torch.func.grad(lambda outputs: per_sample_losses(loss, outputs, labels).sum())(logits)
    logits, labels = ordinary(logits), ordinary(labels)
    with torch.enable_grad():
        seen = logits if logits.requires_grad else logits.detach().requires_grad_()
        total = per_sample_losses(loss, seen, labels).sum()
        (deltas,) = torch.autograd.grad(total, [seen], create_graph=logits.requires_grad)
    return deltas
