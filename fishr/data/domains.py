"""The records of a data set, ``Domain`` and ``Domains``, and the protocol ``DataSet`` of what builds them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from attrs import evolve, frozen
from torch import Tensor

from fishr.errors import InputError
from fishr.losses import Loss, labeled_in_domains, labeled_rows
from fishr.row_checks import check_classes


@runtime_checkable
class LazyInputs(Protocol):
    """N inputs of one shape, read sample by sample; each depends on its row and its seed alone."""

    @property
    def shape(self) -> torch.Size:
        """[N, ...] of all inputs."""
        ...

    @property
    def dtype(self) -> torch.dtype: ...

    def __len__(self) -> int: ...

    def select(self, rows: Sequence[int]) -> Self:
        """Return the inputs of some rows, unread."""
        ...

    def plain(self) -> Self:
        """Return the same inputs without augmentation."""
        ...

    def to(self, device: torch.device) -> Self:
        """Return the same inputs, with what is cached on the device moved there."""
        ...

    def read(self, rows: Sequence[int], seeds: Sequence[int] | None = None) -> Tensor:
        """Return [n, ...] for ``finish``; ``seeds`` has each row's augmentation seed, None for evaluation."""
        ...

    def finish(
        self, read: Tensor, rows: Sequence[int], seeds: Sequence[int] | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Return inputs [n, ...] from what ``read`` returned for the same rows and seeds, on its device; in ``out``."""
        ...


@frozen(eq=False)
class Domain:
    """One domain: inputs and labels collected under the same conditions.

    Args:
        inputs: [N, ...] floating point, at least one axis after the first; a tensor, or inputs read when needed.
        labels: [N] int64, the class of each sample, below 0 for one without a class; or floating point: [N], a number
            for each sample, or [N, C] with C ≥ 2, several numbers such as probabilities of classes.
        environment: Name of the environment that the domain is a part of; None: the domain's own name.
        groups: [N] int64, the group of each sample, such as its patient, which ``HeldOut`` does not divide; None: none.

    Raises:
        InputError: They differ in length, there is no sample, or an axis or dtype is another one.

    Example:
        >>> Domain("sketch", torch.zeros(3, 2), torch.tensor([0, 1, 1])).inputs.shape
        torch.Size([3, 2])
    """

    name: str
    inputs: Tensor | LazyInputs
    labels: Tensor
    environment: str | None = None
    groups: Tensor | None = None

    def __attrs_post_init__(self) -> None:
        if not self.name:
            raise InputError("domain: its name is empty; give each domain a name")
        where = f"domain {self.name!r}"
        inputs, labels = self.inputs, self.labels
        if len(inputs.shape) < 2 or 0 in inputs.shape[1:]:
            got = list(inputs.shape)
            raise InputError(f"{where}: inputs have shape {got}, expected [samples, features] or [samples, ...]")
        if labels.ndim not in (1, 2) or labels.shape[1:] == (1,):
            got = list(labels.shape)
            raise InputError(f"{where}: labels have shape {got}, expected [samples], or [samples, 2 or more]")
        if len(inputs) != len(labels):
            raise InputError(f"{where}: {len(inputs)} inputs but {len(labels)} labels; expected as many of each")
        if self.groups is not None and self.groups.shape != (len(labels),):
            got = list(self.groups.shape)
            raise InputError(f"{where}: groups have shape {got}, expected [{len(labels)}], one for each sample")
        if len(labels) == 0:
            raise InputError(f"{where}: it has no samples; leave the domain out or give it at least one")
        if not inputs.dtype.is_floating_point:
            raise InputError(f"{where}: inputs are {inputs.dtype}, expected floating point such as torch.float32")
        if labels.dtype != torch.int64 and labels.ndim == 1 and not labels.is_floating_point():
            raise InputError(f"{where}: labels are {labels.dtype}, expected torch.int64; use labels.long()")
        if labels.ndim == 2 and not labels.is_floating_point():
            raise InputError(f"{where}: labels are {labels.dtype}, expected floating point; use labels.float()")

    @property
    def title(self) -> str:
        """The name in tables and figures, with that of the environment."""
        return domain_title(self.name, self.environment)

    def class_counts(self, classes: int) -> Tensor:
        """Return the number of samples of each class, [C], without those that have no label."""
        return self.labels[self.labels >= 0].bincount(minlength=classes)

    def part(self, indices: Sequence[int], name: str | None = None) -> "Domain":
        """Return the domain of some samples, in the given order.

        Example:
            >>> photo = Domain("photo", torch.eye(3), torch.tensor([0, 1, 0]))
            >>> photo.part([2, 1], "env0_in").labels
            tensor([0, 1])
        """
        chosen = torch.tensor(indices, device=self.labels.device)
        picked = self.inputs[chosen] if isinstance(self.inputs, Tensor) else self.inputs.select(indices)
        groups = None if self.groups is None else self.groups[chosen.to(self.groups.device)]
        return evolve(self, name=name or self.name, inputs=picked, labels=self.labels[chosen], groups=groups)

    def labeled(self, loss: Loss) -> "Domain":
        """Return the domain of the samples that have a label for a loss.

        Raises:
            InputError: None has.

        Example:
            >>> from fishr.losses import CrossEntropy
            >>> Domain("photo", torch.eye(3), torch.tensor([0, -1, 1])).labeled(CrossEntropy(ignore_index=-1)).labels
            tensor([0, 1])
        """
        return self.chosen(labeled_rows(loss, self.labels, (len(self.labels),))[0])

    def chosen(self, rows: Tensor | None) -> "Domain":
        """Return the domain of some labeled samples, None for all; refuse none."""
        if rows is None:
            return self
        if not len(rows):
            raise InputError(f"domain {self.name!r}: no sample has a label, expected at least one; leave it out")
        return self.part(rows.tolist())

    def to(self, device: torch.device) -> "Domain":
        """Return the domain with its tensors on a device."""
        return evolve(self, inputs=self.inputs.to(device), labels=self.labels.to(device))


def domain_title(name: str, environment: str | None) -> str:
    """Return a domain's name with that of its environment, unless the name begins with it."""
    return name if environment is None or name.startswith(f"{environment} (") else f"{name} ({environment})"


Split = Literal["training", "evaluation"]


@frozen(eq=False)
class Domains:
    """A data set: training domains, and domains that only evaluate.

    Args:
        training: K domains, at least one.
        evaluation: Any number of domains that never enter a training batch.
        classes: C, at least 2; every label is below C. A domain may lack a class. Of labels in floating point, the
            number that each sample has.
        class_names: Name of each class, if the classes have names; a trained model keeps them.

    Raises:
        InputError: No training domain, two domains of one name, unequal shapes or dtypes, a label outside the classes,
            or another number of names than of classes.

    Example:
        >>> photo = Domain("photo", torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> sketch = Domain("sketch", torch.zeros(2, 3), torch.tensor([1, 1]))
        >>> Domains((photo,), (sketch,), classes=2).shape
        (3,)
    """

    training: tuple[Domain, ...]
    evaluation: tuple[Domain, ...]
    classes: int
    class_names: tuple[str, ...] | None = None

    def __attrs_post_init__(self) -> None:
        if not self.training:
            raise InputError("domains: there is no training domain; give at least one")
        first, columns = self.training[0], self.label_columns
        if columns is not None and self.classes != columns:
            raise InputError(f"classes: got {self.classes} for {columns} labels a sample, expected {columns}")
        if columns is None and self.classes < 2:
            raise InputError(f"classes: got {self.classes}, expected at least 2; give the number of classes")
        if self.class_names is not None and len(set(self.class_names)) != self.classes:
            raise InputError(
                f"class_names: got {len(set(self.class_names))} different names, expected one for each of the "
                f"{self.classes} classes"
            )
        names: set[str] = set()
        for domain in (*self.training, *self.evaluation):
            where, got, expected = f"domain {domain.name!r}", domain.inputs, first.inputs
            if domain.name in names:
                raise InputError(f"domains: two are called {domain.name!r}; give each a name of its own")
            names.add(domain.name)
            if got.shape[1:] != expected.shape[1:]:
                raise InputError(
                    f"{where}: one input has shape {list(got.shape[1:])}, expected {list(expected.shape[1:])} as in "
                    f"domain {first.name!r}"
                )
            if got.dtype != expected.dtype:
                raise InputError(f"{where}: inputs are {got.dtype}, expected {expected.dtype} as in {first.name!r}")
            labels, like = domain.labels, first.labels
            if labels.dtype != like.dtype or labels.shape[1:] != like.shape[1:]:
                raise InputError(
                    f"{where}: labels are {labels.dtype} of shape {list(labels.shape)}, expected {like.dtype} as in "
                    f"{first.name!r}, of shape {[len(labels), *like.shape[1:]]}"
                )
            if columns is None:
                check_classes(where, labels[labels >= 0], self.classes)

    @property
    def label_columns(self) -> int | None:
        """Number of labels in floating point that a sample has; None: the labels are classes."""
        labels = self.training[0].labels
        return labels[:1].numel() if labels.is_floating_point() else None

    def labeled(self, loss: Loss) -> "Domains":
        """Return the data set of the samples that have a label for a loss.

        Raises:
            InputError: the loss does not take a domain's labels, or a domain has none.
        """
        labels = {domain.name: domain.labels for domain in (*self.training, *self.evaluation)}
        rows = labeled_in_domains(loss, labels, self.classes, self.label_columns)
        training, evaluation = (
            tuple(domain.chosen(rows[domain.name]) for domain in part) for part in (self.training, self.evaluation)
        )
        if not hasattr(loss, "check_labels") and self.label_columns is None:
            for domain in (*training, *evaluation):
                check_classes(f"domain {domain.name!r}", domain.labels, self.classes)
        return evolve(self, training=training, evaluation=evaluation)

    @property
    def by_split(self) -> tuple[tuple[Domain, Split], ...]:
        """Each domain and its split, training domains first."""
        parts: tuple[tuple[Split, tuple[Domain, ...]], ...]
        parts = (("training", self.training), ("evaluation", self.evaluation))
        return tuple((domain, split) for split, part in parts for domain in part)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the axis of samples."""
        return tuple(self.training[0].inputs.shape[1:])

    def to(self, device: torch.device) -> "Domains":
        """Return the domains with their tensors on a device."""
        training, evaluation = (tuple(one.to(device) for one in part) for part in (self.training, self.evaluation))
        return evolve(self, training=training, evaluation=evaluation)


class DataSet(Protocol):
    """Data of an experiment: frozen settings, or a plain function, whose call returns the domains.

    Example:
        >>> def noise(seed, data_dir):
        ...     draw = torch.Generator().manual_seed(seed)
        ...     parts = [Domain(name, torch.randn(8, 3, generator=draw), torch.arange(8) % 2) for name in "ab"]
        ...     return Domains((parts[0],), (parts[1],), classes=2)
        >>> own: DataSet = noise
        >>> own(0, None).shape
        (3,)
    """

    def __call__(self, seed: int, data_dir: Path | None, /) -> Domains:
        """Return the domains."""
        ...
