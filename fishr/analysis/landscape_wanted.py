"""What landscape of a subject is asked for, and whether there can be one."""

from collections import OrderedDict
from typing import Literal

import torch
from attrs import frozen
from torch import nn

from fishr.analysis.subject import Subject
from fishr.data.reading import tensor_of
from fishr.errors import InputError
from fishr.landscape import Samples
from fishr.landscape.directions import Kind


@frozen
class Landscape:
    """What landscape is asked for.

    Args:
        kind: of the directions.
        grid: points of each axis.
        span: how far from the weights, see ``grid_axes``.
        parameters: the head's alone, on fixed features, or all.
        seed: of random directions.
        of: the domain whose eigenvectors, or the two whose gradients; empty for the first.
        lines: how many, of kind "line".
        animate: the same plane around each kept checkpoint as well.

    Example:
        >>> Landscape("random", grid=(51, 51)).span
        1.0
    """

    kind: Kind
    grid: tuple[int, ...]
    span: float = 1.0
    parameters: Literal["head", "all"] = "head"
    seed: int = 0
    of: tuple[str, ...] = ()
    lines: int = 5
    animate: bool = False


def check_wanted(subject: Subject, wanted: Landscape, second: Subject | None) -> None:
    """Refuse what a subject does not offer.

    Raises:
        InputError: it says what, and what would.

    Example:
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> flat = Domain("flat", torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> subject = Subject.from_domains("mine", nn.Linear(3, 2), CrossEntropy(), [flat], ("training",))
        >>> check_wanted(subject, Landscape("eigen", (5, 5), of=("flat",)), None)
    """
    if (second is not None) != (wanted.kind == "interpolation"):
        raise InputError(
            f"directions: got {wanted.kind} with {1 if second is None else 2} runs, expected two runs for "
            "interpolation and one for all others"
        )
    for one in (subject, second):
        if wanted.parameters == "all" and one is not None and one.network is None:
            raise InputError(
                f"{one.name}: holds features alone, but all parameters are to move; give the run, or --parameters head"
            )
    for name in wanted.of:
        if name not in subject.domains:
            raise InputError(f"{subject.name}: got domain {name!r}, expected some of: {', '.join(subject.domains)}")
    if wanted.of and len(wanted.of) != {"eigen": 1, "gradients": 2}.get(wanted.kind, 0):
        raise InputError(
            f"domains of {wanted.kind} directions: got {len(wanted.of)}, expected one for eigen, two for gradients"
        )
    if wanted.animate and wanted.kind in ("line", "interpolation"):
        raise InputError(f"animate: got {wanted.kind} directions, expected a plane, such as random")
    if wanted.animate and len(subject.trajectory) < 2:
        raise InputError(f"{subject.name}: has no checkpoints to animate; train with --keep-checkpoints")
    if second is not None and wanted.parameters == "head":
        _check_features(subject, second)


def _check_features(subject: Subject, second: Subject) -> None:
    for name, (one, _), (other, _) in zip(
        subject.domains, subject.seen.domain_samples, second.seen.domain_samples, strict=False
    ):
        if one.shape != other.shape or not torch.equal(one, other):
            raise InputError(
                f"interpolation: the features of domain {name!r} differ between {subject.name} and {second.name}, "
                "so their heads alone cannot be compared; interpolate all parameters (--parameters all)"
            )


def moved_module(subject: Subject, wanted: Landscape) -> nn.Module:
    """The head, or featurizer and head as one module whose parameters are named as in a training state."""
    if wanted.parameters == "head" or subject.network is None:
        return subject.seen.head
    return nn.Sequential(OrderedDict(featurizer=subject.network.featurizer, head=subject.seen.head))


def read_samples(subject: Subject, wanted: Landscape) -> Samples:
    """What that module reads of each domain, with the labels."""
    if wanted.parameters == "head" or subject.network is None:
        return list(subject.seen.domain_samples)
    samples = zip(subject.network.inputs, subject.seen.domain_samples, strict=True)
    return [(tensor_of(inputs).to(labels.device), labels) for inputs, (_, labels) in samples]
