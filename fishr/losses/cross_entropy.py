"""Softmax cross-entropy of class indices or of probabilities."""

import torch
from attrs import field, frozen
from attrs.converters import optional as or_none
from attrs.validators import instance_of, optional
from torch import Tensor

from fishr.checks import number
from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.losses.label_checks import bounds, can_be_read, check_number_of_weights, check_weights, weights

# Sums of probabilities in 16 bits differ from 1 by less.
_SUM_TOLERANCE = 1e-2


def _none_for_zero(value: float) -> float | None:
    return value or None


@traceable
@frozen
class CrossEntropy:
    """Softmax cross-entropy, in nats: ℓ_n = −Σ_c t_nc·log p_nc with p_n = softmax(f_n).

    Labels are class indices y [N], t_nc = w_c·((1 − ε)·[c = y_n] + ε/C), or soft labels q [N, C], probabilities,
    t_nc = w_c·((1 − ε)·q_nc + ε/C). By default t_n is the one-hot label and ℓ_n = logsumexp(f_n) − f_n[y_n].

    Each value is that of ``torch.nn.functional.cross_entropy(reduction="none")``. Means over a domain divide by its
    number of samples, where torch's ``reduction="mean"`` divides by the sum of their class weights.

    Args:
        label_smoothing: ε, at least 0 and less than 1; None: 0.
        class_weights: w, a number of at least 0 for each output; None: 1 each.
        ignore_index: class index of samples without a label, such as -100. Their loss is 0, and observations,
            moments and scores leave them out: they are in no mean and no size. None: there are none.

    Raises:
        InputError: A setting outside its range. When called: a single output, another number of class weights than
            outputs, labels that are neither [N] whole numbers from 0 to C - 1 nor [N, C] probabilities; the values of
            labels on a GPU are not checked.

    Example:
        >>> CrossEntropy()(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor([1.3863, 1.3863])
        >>> CrossEntropy(class_weights=(1.0, 2.0), ignore_index=-1)(torch.zeros(3, 2), torch.tensor([0, 1, -1]))
        tensor([0.6931, 1.3863, 0.0000])

    Source:
        Szegedy et al. 2016 (arXiv 1512.00567), label smoothing.
    """

    # None rather than 0: a file leaves it out, as files before this setting do.
    label_smoothing: float | None = field(
        default=None, converter=or_none(_none_for_zero), validator=optional(number(below=1))
    )
    class_weights: tuple[float, ...] | None = field(
        default=None, converter=or_none(weights), validator=optional(check_weights)
    )
    ignore_index: int | None = field(default=None, validator=optional(instance_of(int)))

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the losses [N] of logits [N, C], C ≥ 2, and class indices [N] or probabilities [N, C]."""
        self._check(logits, labels)
        if not self.one_hot(labels):
            return -(self.targets(logits, labels) * logits.log_softmax(1)).sum(1)
        losses = torch.logsumexp(logits, 1) - logits.gather(1, self._indices(labels)).squeeze(1)
        return self._weighted(losses.unsqueeze(1), labels).squeeze(1)

    def deltas(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return δ = ∂ℓ/∂f = (Σ_c t_nc)·softmax(f_n) − t_n, [N, C]."""
        self._check(logits, labels)
        if not self.one_hot(labels):
            targets = self.targets(logits, labels)
            return targets.sum(1, keepdim=True) * logits.softmax(1) - targets
        ones = torch.ones((), dtype=logits.dtype, device=logits.device).expand(len(logits), 1)
        return self._weighted(logits.softmax(1).scatter_add(1, self._indices(labels), -ones), labels)

    def targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return t [N, C], in the logits' type."""
        if labels.ndim == 2:
            found = labels.to(logits.dtype)
        else:
            found = torch.zeros_like(logits).scatter(1, self._indices(labels), 1.0)
        if self.label_smoothing:
            found = found * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        if self.class_weights is not None:
            found = found * logits.new_tensor(self.class_weights)
        labeled = self.labeled(labels)
        return found if labeled is None else found * labeled.unsqueeze(1)

    def one_hot(self, labels: Tensor) -> bool:
        """Return whether each t_n has a single entry that is not 0."""
        return labels.ndim == 1 and not self.label_smoothing

    def labeled(self, labels: Tensor) -> Tensor | None:
        """Return which samples have a label, [N]; None: all have."""
        return None if self.ignore_index is None or labels.ndim == 2 else labels != self.ignore_index

    def outputs(self, classes: int) -> int:
        """Return the number of head outputs for so many classes."""
        return classes

    def predictions(self, logits: Tensor) -> Tensor:
        """Return the most likely class, [N]."""
        return logits.argmax(1)

    def check_labels(self, labels: Tensor, outputs: int) -> None:
        """Refuse labels that are neither class indices [N] from 0 to C - 1 nor probabilities [N, C]."""
        check_number_of_weights("class_weights", self.class_weights, outputs)
        if labels.shape[1:] == (outputs,) and labels.is_floating_point():
            _check_probabilities(torch.func.debug_unwrap(labels))
            return
        if labels.ndim != 1 or labels.dtype != torch.int64:
            raise _neither(labels, len(labels), outputs)
        values = torch.func.debug_unwrap(labels)
        lowest, highest = bounds(values if self.ignore_index is None else values[values != self.ignore_index])
        if lowest >= 0 and highest < outputs:
            return
        if lowest < 0:
            remedy = f"to leave samples out, use CrossEntropy(ignore_index={lowest})"
        elif lowest > 0 and highest == outputs:
            remedy = "if they start at 1, subtract 1"
        else:
            remedy = "number the classes from 0, or give the head more outputs"
        raise InputError(
            f"cross-entropy: got labels from {lowest} to {highest}, expected whole numbers from 0 to {outputs - 1}, "
            f"for {outputs} outputs; {remedy}"
        )

    def _indices(self, labels: Tensor) -> Tensor:
        """[N, 1] class indices, 0 for samples without a label."""
        labeled = self.labeled(labels)
        return (labels if labeled is None else labels * labeled).unsqueeze(1)

    def _weighted(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Return rows [N, ·] times the weight of each sample's class, 0 for samples without a label."""
        if self.class_weights is not None:
            rows = rows * rows.new_tensor(self.class_weights).gather(0, self._indices(labels).squeeze(1)).unsqueeze(1)
        labeled = self.labeled(labels)
        return rows if labeled is None else rows * labeled.unsqueeze(1)

    def _check(self, logits: Tensor, labels: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise InputError(
                f"cross-entropy: got logits of shape {tuple(logits.shape)}, expected [N, C] with C ≥ 2; "
                "for a head with a single output use BinaryCrossEntropy()"
            )
        soft = labels.is_floating_point() and labels.shape == logits.shape
        if not soft and (labels.shape != logits.shape[:1] or labels.dtype != torch.int64):
            raise _neither(labels, *logits.shape)
        check_number_of_weights("class_weights", self.class_weights, logits.shape[1])
        if can_be_read(labels):
            self.check_labels(labels, logits.shape[1])


def _neither(labels: Tensor, samples: int, outputs: int) -> InputError:
    """Return the error of labels that are neither class indices nor probabilities."""
    if labels.shape == (samples,):
        remedy = "for other numbers use SquaredError()" if labels.is_floating_point() else "use labels.long()"
    elif labels.shape == (samples, outputs):
        remedy = "use labels.float() if each row has a single 1, else BinaryCrossEntropy()"
    else:
        remedy = "use labels.flatten()" if labels.shape == (samples, 1) else "give a label for each sample"
    return InputError(
        f"cross-entropy: got labels of shape {tuple(labels.shape)} and type {labels.dtype}, expected [{samples}] and "
        f"torch.int64, or probabilities [{samples}, {outputs}]; {remedy}"
    )


def _check_probabilities(labels: Tensor) -> None:
    lowest, highest = bounds(labels)
    sums = labels.reshape(-1, labels.shape[-1]).sum(1)
    if not (lowest >= 0 and highest <= 1 + _SUM_TOLERANCE):
        raise InputError(
            f"cross-entropy: got soft labels from {lowest:g} to {highest:g}, expected probabilities; apply softmax to "
            "scores, or use SquaredError() for other numbers"
        )
    if len(sums) and (sums - 1).abs().max() > _SUM_TOLERANCE:
        raise InputError(
            f"cross-entropy: got soft labels of a sample that sum to {sums[(sums - 1).abs().argmax()].item():g}, "
            "expected 1; divide by the sum, or use BinaryCrossEntropy() for several labels a sample"
        )
