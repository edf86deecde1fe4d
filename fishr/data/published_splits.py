"""Domains by the splits that a data set was published with."""

from pathlib import Path
from typing import Any

import attrs
from attrs import evolve, field, frozen
from torch import Tensor

from fishr.checks import distinct_names
from fishr.data.domains import Domain, Domains
from fishr.data.environments import Environments, EnvironmentSource
from fishr.errors import InputError


@frozen
class PublishedSplits:
    """Domains of a data set that was published in splits, as those of WILDS: some train, the others evaluate.

    The environments of the training splits keep their names; those of an evaluation split are called "NAME (SPLIT)" and
    are never augmented.

    Args:
        source: Settings with a field ``splits``, such as ``ImageList`` or ``HuggingFaceImages``.
        training: Splits to train on, together.
        evaluation: Splits to evaluate, one by one.

    Raises:
        InputError: The source has no splits, or a split is named twice; when called, an unknown split.

    Example:
        >>> from fishr.data import HuggingFaceImages
        >>> PublishedSplits(HuggingFaceImages("wltjr1007/DomainNet", domain="domain"), evaluation=("test",)).training
        ('train',)

    Source:
        Koh et al., WILDS: A benchmark of in-the-wild distribution shifts, ICML 2021.
    """

    source: EnvironmentSource
    evaluation: tuple[str, ...] = field(validator=distinct_names)
    training: tuple[str, ...] = field(default=("train",), validator=distinct_names)

    def __attrs_post_init__(self) -> None:
        kind: Any = type(self.source)
        if not attrs.has(kind) or "splits" not in attrs.fields_dict(kind):
            raise InputError(
                f"source: got {getattr(self.source, '__name__', kind.__name__)}, expected one with splits, such as "
                "ImageList or HuggingFaceImages"
            )
        for name in self.evaluation:
            if name in self.training:
                raise InputError(f"evaluation: got {name!r}, which is for training too; leave it out of one of them")

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Return the environments of each split."""
        whole = self._split(self.training, seed, data_dir)
        evaluation = list[Domain]()
        for split in self.evaluation:
            for domain in self._split((split,), seed, data_dir).domains:
                inputs = domain.inputs if isinstance(domain.inputs, Tensor) else domain.inputs.plain()
                name = f"{domain.name} ({split})"
                evaluation.append(evolve(domain, name=name, inputs=inputs, environment=domain.name))
        return Domains(whole.domains, tuple(evaluation), whole.classes, whole.class_names)

    def _split(self, names: tuple[str, ...], seed: int, data_dir: Path | None) -> Environments:
        source: Any = self.source
        return evolve(source, splits=names)(seed, data_dir)
