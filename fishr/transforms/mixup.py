"""Mixup between domains."""

from collections.abc import Sequence

import numpy as np
import torch
from attrs import evolve, field, frozen
from torch import Tensor, nn

from fishr.checks import number
from fishr.errors import InputError
from fishr.types import DomainBatch


@frozen
class Mixup:
    """Each domain is mixed with another: x = s·x_i + (1 − s)·x_j and y = s·y_i + (1 − s)·y_j, row by row.

    A step draws a cycle through the domains and a share s ~ Beta(α, α) for each pair of neighbors (i, j) in it. The
    mixture takes the place of domain i; its rows are cut to those of the smaller domain. For cross-entropy, which is
    linear in the labels, its loss is s·ℓ(f, y_i) + (1 − s)·ℓ(f, y_j) exactly.

    Args:
        alpha: α, greater than 0. If it is small, most mixtures are close to one sample; 1 draws shares uniformly.

    Raises:
        InputError: ``alpha`` is not greater than 0. When called: inputs that are no tensor of floating-point numbers,
            or class indices outside 0 to C − 1.

    Example:
        >>> batch = DomainBatch(torch.eye(4), torch.tensor([0, 1, 2, 2]), sizes=(2, 2))
        >>> mixed = Mixup()(batch, torch.Generator().manual_seed(0), outputs=3)
        >>> mixed.sizes, mixed.labels.shape, mixed.labels.sum(1)
        ((2, 2), torch.Size([4, 3]), tensor([1., 1., 1., 1.]))

    Source:
        Zhang et al., mixup, ICLR 2018 (arXiv 1710.09412); between domains as in DomainBed (Gulrajani and Lopez-Paz,
        ICLR 2021).
    """

    alpha: float = field(default=0.2, validator=number(above=True))

    def __call__(self, batch: DomainBatch, generator: torch.Generator, outputs: int) -> DomainBatch:
        """Return the mixed batch; labels of classes become probabilities [N, C], for C of at least 2."""
        present = [k for k, size in enumerate(batch.sizes) if size]
        order = [present[i] for i in torch.randperm(len(present), generator=generator).tolist()]
        # torch has no public Beta distribution that takes a generator.
        draws = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        return mix_domains(batch, order, draws.beta(self.alpha, self.alpha, len(order)).tolist(), outputs)


def mix_domains(batch: DomainBatch, order: Sequence[int], shares: Sequence[float], outputs: int) -> DomainBatch:
    """Return the batch with each domain of a cycle mixed with the next one, by shares of the first of each pair.

    Args:
        batch: Samples of K domains.
        order: The cycle: each domain that has samples, once.
        shares: Of the samples of ``order[i]`` in its mixture with ``order[i + 1]``, 0 to 1; the last one is mixed
            with the first.
        outputs: C; of at least 2, class indices [N] become rows [C] of probabilities.

    Raises:
        InputError: Inputs, labels, order or shares of another form.

    Example:
        >>> batch = DomainBatch(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), sizes=(1, 1))
        >>> mixed = mix_domains(batch, order=(0, 1), shares=(0.75, 0.5), outputs=2)
        >>> mixed.inputs.flatten(), mixed.labels
        (tensor([1., 2.]), tensor([[0.7500, 0.2500],
                [0.5000, 0.5000]]))
    """
    inputs = batch.inputs
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__qualname__
        raise InputError(f"mixup: got inputs in a {kind}, expected a tensor of floating-point numbers; mix features")
    present = [k for k, size in enumerate(batch.sizes) if size]
    if sorted(order) != present or len(shares) != len(present):
        raise InputError(
            f"mixup: got the order {tuple(order)} and {len(shares)} shares, expected each of the domains "
            f"{tuple(present)} once, and a share for each"
        )
    labels = _targets(batch.labels, outputs, inputs.dtype)
    rows = [part.split(list(batch.sizes)) for part in (inputs, labels)]
    mixed = [list(part) for part in rows]
    for first, second, share in zip(order, (*order[1:], order[0]), shares, strict=True):
        count = min(batch.sizes[first], batch.sizes[second])
        for part, new in zip(rows, mixed, strict=True):
            new[first] = share * part[first][:count] + (1 - share) * part[second][:count]
    return evolve(
        batch, inputs=torch.cat(mixed[0]), labels=torch.cat(mixed[1]), sizes=tuple(len(part) for part in mixed[1])
    )


def _targets(labels: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
    """Return labels that can be mixed: probabilities [N, C] of class indices, or numbers as they are."""
    if labels.is_floating_point() or labels.ndim > 1 or outputs == 1:
        return labels.to(dtype)
    if labels.device.type == "cpu" and not ((labels >= 0) & (labels < outputs)).all():
        raise InputError(
            f"mixup: got labels from {int(labels.min())} to {int(labels.max())}, expected classes from 0 to "
            f"{outputs - 1}; leave out samples without a label"
        )
    return nn.functional.one_hot(labels, outputs).to(dtype)
