"""Environments of a feature file, kept in memory between the jobs of one process."""

from pathlib import Path
from typing import cast

import attrs
from attrs import field, frozen

from fishr.data.cached_environments import FeatureEnvironments
from fishr.data.environments import Environments
from fishr.data.held_out import HeldOut, Source
from fishr.training.experiment import Experiment


@frozen(eq=False)
class Memory:
    """What a process holds: the environments of the last feature file that one of its jobs read.

    Reading a file again costs a job on cached features more than its training; nothing else is held, because there
    training costs more.

    Example:
        >>> Memory().held
        {}
    """

    held: dict[tuple[FeatureEnvironments, Path | None], Environments] = field(factory=dict)


@frozen
class Remembered:
    """A feature file that is read only where the memory lacks it.

    Args:
        source: the file.
        memory: of the process.

    Example:
        >>> source, kept = FeatureEnvironments("features.h5"), Environments((), classes=2)
        >>> Remembered(source, Memory({(source, None): kept}))(seed=0, data_dir=None) is kept
        True
    """

    source: FeatureEnvironments
    memory: Memory

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """The environments, which no seed changes."""
        held, key = self.memory.held, (self.source, data_dir)
        if key not in held:
            read = self.source(seed, data_dir)
            held.clear()
            held[key] = read
        return held[key]


def remembering(experiment: Experiment, memory: Memory) -> Experiment:
    """The same experiment, whose feature file is not read when the memory has it.

    Args:
        experiment: of a job.
        memory: of the process.

    Example:
        >>> from fishr.protocols import colored_digits
        >>> remembering(colored_digits(), Memory()) == colored_digits()
        True
    """
    data = experiment.data
    if isinstance(data, HeldOut) and isinstance(data.source, FeatureEnvironments):
        source = cast(Source, Remembered(data.source, memory))
        return attrs.evolve(experiment, data=attrs.evolve(data, source=source))
    return experiment
