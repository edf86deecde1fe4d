"""What is looked at: a head on the features of domains, and, from a run, the network in front of it."""

from typing import Literal

from attrs import Factory, frozen
from torch import Tensor, nn

from fishr.data.domains import Domain
from fishr.data.inputs import LazyInputs
from fishr.errors import InputError
from fishr.losses import Loss

Split = Literal["training", "evaluation"]


@frozen(eq=False)
class Network:
    """The featurizer in front of a head, and what it reads.

    Args:
        featurizer: in eval mode, from inputs [N, ...] to features [N, F].
        inputs: [n, ...] of each of the subject's domains, in their order; files are read when they are used.

    Example:
        >>> import torch
        >>> Network(nn.Flatten(), (torch.zeros(2, 3, 3),)).inputs[0].shape
        torch.Size([2, 3, 3])
    """

    featurizer: nn.Module
    inputs: tuple[Tensor | LazyInputs, ...]


@frozen(eq=False)
class Snapshot:
    """Weights at one step of a run.

    Args:
        step: updates made before.
        parameters: by name, "featurizer.…" and "head.…", as in a training state.

    Example:
        >>> import torch
        >>> Snapshot(100, {"head.weight": torch.zeros(2, 3)}).step
        100
    """

    step: int
    parameters: dict[str, Tensor]


@frozen(eq=False)
class Subject:
    """What diagnostics, landscapes and figures look at.

    Args:
        name: how tables and figures call it.
        head: in eval mode, from features [N, F] to logits [N, C]; its parameters require grad.
        loss: per-sample, unscaled.
        domains: K domains whose inputs are features [n, F]; training domains first.
        splits: "training" or "evaluation" of each domain.
        network: featurizer and its inputs; None where the source holds features alone.
        trajectory: kept checkpoints by ascending step; empty where there are none.
        source: where it comes from: path, kind, key (a hash that two equal sources share) and step.

    Raises:
        InputError: there is no domain, or not one split a domain.

    Example:
        >>> import torch
        >>> flat = Domain("flat", torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> from fishr.losses import CrossEntropy
        >>> subject = Subject("mine", nn.Linear(3, 2), CrossEntropy(), (flat,), ("training",))
        >>> [domain.name for domain in subject.of("training")]
        ['flat']
    """

    name: str
    head: nn.Module
    loss: Loss
    domains: tuple[Domain, ...]
    splits: tuple[Split, ...]
    network: Network | None = None
    trajectory: tuple[Snapshot, ...] = ()
    source: dict[str, str] = Factory(dict[str, str])

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be looked at."""
        if not self.domains:
            raise InputError(f"{self.name}: got no domain, expected at least one")
        if len(self.splits) != len(self.domains):
            raise InputError(f"{self.name}: got {len(self.splits)} splits for {len(self.domains)} domains")

    def of(self, split: Split) -> tuple[Domain, ...]:
        """The domains of one split, in order."""
        return tuple(domain for domain, own in zip(self.domains, self.splits, strict=True) if own == split)
