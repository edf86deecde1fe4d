"""Landscape options and their validation."""

from typing import Literal

import torch
from attrs import frozen

from fishr.analysis.subject import Subject
from fishr.errors import InputError
from fishr.landscape.directions import Kind


@frozen
class Options:
    """Options of a landscape; their names and values are part of its file, as JSON."""

    kind: Kind
    # Points of each axis.
    grid: tuple[int, ...]
    # Reach of the axes, see ``grid_axes``.
    span: float = 1.0
    # Those that move: the head's, on fixed features, or all.
    parameters: Literal["head", "all"] = "head"
    seed: int = 0
    # The domain of the eigenvectors, or the two of the gradients; empty for the first.
    of: tuple[str, ...] = ()
    lines: int = 5
    # Also evaluate the plane around each kept checkpoint.
    animate: bool = False

    def __attrs_post_init__(self) -> None:
        if self.of and len(self.of) != {"eigen": 1, "gradients": 2}.get(self.kind, 0):
            raise InputError(
                f"domains of {self.kind} directions: got {len(self.of)}, expected one for eigen, two for gradients"
            )
        if self.animate and self.kind in ("line", "interpolation"):
            raise InputError(f"animate: got {self.kind} directions, expected a plane, such as random")

    def check(self, subject: Subject, second: Subject | None) -> None:
        """Raise InputError if the subjects do not allow this landscape."""
        if (second is not None) != (self.kind == "interpolation"):
            raise InputError(
                f"directions: got {self.kind} with {1 if second is None else 2} runs, expected two runs for "
                "interpolation and one for all others"
            )
        for one in (subject, second):
            if self.parameters == "all" and one is not None and one.network is None:
                raise InputError(
                    f"{one.name}: has features only, but all parameters move; give the run, or --parameters head"
                )
        for name in self.of:
            if name not in subject.domains:
                raise InputError(f"{subject.name}: got domain {name!r}, expected some of: {', '.join(subject.domains)}")
        if self.animate and len(subject.trajectory) < 2:
            raise InputError(f"{subject.name}: has no checkpoints to animate; train with --keep-checkpoints")
        if self.animate and self.parameters == "head":
            network = subject.network
            if network is None or any(buffer.is_floating_point() for buffer in network.featurizer.buffers()):
                raise InputError(
                    f"{subject.name}: its featurizer has buffers such as running means, which kept checkpoints lack, "
                    "so the head's earlier features are not known; animate all parameters (--parameters all)"
                )
        if second is not None and self.parameters == "head":
            self._check_features(subject, second)

    def _check_features(self, subject: Subject, second: Subject) -> None:
        both = zip(subject.domains, subject.seen.domain_samples, second.seen.domain_samples, strict=False)
        for name, (one, _), (other, _) in both:
            if one.shape != other.shape or not torch.equal(one, other):
                raise InputError(
                    f"interpolation: the features of domain {name!r} differ between {subject.name} and "
                    f"{second.name}, so the heads alone are not comparable; interpolate all parameters "
                    "(--parameters all)"
                )
