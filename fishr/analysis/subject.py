"""A trained head on the features of its domains, with what is known of its run."""

from collections.abc import Sequence
from typing import Any

import torch
from attrs import Factory, frozen
from torch import Tensor, nn

from fishr.data.domains import Domain, LazyInputs, Split
from fishr.data.reading import tensor_of
from fishr.errors import InputError
from fishr.losses import Loss
from fishr.observation import Observation, observe
from fishr.ranks import ALONE
from fishr.types import DomainBatch


@frozen(eq=False)
class Network:
    """The featurizer in front of a head, and its inputs."""

    featurizer: nn.Module  # in eval mode, [N, ...] to features [N, F]
    inputs: tuple[Tensor | LazyInputs, ...]  # [n, ...] of each domain; files are read when used


@frozen(eq=False)
class Snapshot:
    """Weights at one step of a run."""

    step: int  # updates made before
    parameters: dict[str, Tensor]  # by name, "featurizer.…" and "head.…"


@frozen(eq=False)
class Subject:
    """A head on the features of K domains, opened for analysis; ``from_domains`` makes one of your own.

    Args:
        name: its name in tables and figures.
        seen: the head, in eval mode, and the features, labels and loss; training domains first.
        domains: name of each domain.
        splits: "training" or "evaluation" of each domain.
        network: featurizer and its inputs; None where the source has features alone.
        trajectory: kept checkpoints by ascending step; empty where there are none.
        source: path, kind, key (a hash that two equal sources share) and step.
        titles: name of each domain in tables and figures; by default its name.
        every: titles of all domains of the source, which decide the colors in figures; by default ``titles``.

    Raises:
        InputError: the number of names or splits differs from that of the domains.

    Example:
        >>> from fishr.losses import CrossEntropy
        >>> flat = Domain("flat", torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> subject = Subject.from_domains("mine", nn.Linear(3, 2), CrossEntropy(), [flat], ("training",))
        >>> subject.domains, subject.seen.logits.shape
        (('flat',), torch.Size([4, 2]))
    """

    name: str
    seen: Observation
    domains: tuple[str, ...]
    splits: tuple[Split, ...]
    network: Network | None = None
    trajectory: tuple[Snapshot, ...] = ()
    source: dict[str, str] = Factory(dict[str, str])
    titles: tuple[str, ...] = Factory(lambda self: self.domains, takes_self=True)
    every: tuple[str, ...] = Factory(lambda self: self.titles, takes_self=True)

    def __attrs_post_init__(self) -> None:
        for what, given in (("names", self.domains), ("splits", self.splits), ("titles", self.titles)):
            if len(given) != self.seen.domains:
                raise InputError(f"{self.name}: got {len(given)} {what} for {self.seen.domains} domains")

    @classmethod
    def from_domains(
        cls, name: str, head: nn.Module, loss: Loss, domains: Sequence[Domain], splits: tuple[Split, ...], **rest: Any
    ) -> "Subject":
        """Return the subject of a head and domains whose inputs are features; ``rest`` are fields of the class."""
        if not domains:
            raise InputError(f"{name}: got no domain, expected at least one")
        features = torch.cat([tensor_of(domain.inputs) for domain in domains])
        labels = torch.cat([domain.labels for domain in domains])
        batch = DomainBatch(features, labels, tuple(len(domain.labels) for domain in domains))
        seen = observe(nn.Identity(), head, batch, loss, ranks=ALONE)
        names, titles = (tuple(getattr(domain, which) for domain in domains) for which in ("name", "title"))
        return cls(name, seen, names, splits, titles=titles, **rest)
