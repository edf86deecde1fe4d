"""Environments of a benchmark, and the two ways to make domains of them: some held out for testing, or all whole."""

from hashlib import md5
from pathlib import Path
from typing import Protocol

import numpy as np
from attrs import evolve, field, frozen
from torch import Tensor

from fishr.checks import number
from fishr.data.domains import DataSet, Domain, Domains
from fishr.errors import InputError


@frozen(eq=False)
class Environments:
    """All environments of a data set, in the order of their indices.

    Args:
        domains: One for each environment, named as in the data set.
        classes: C, at least 2.
        class_names: Name of each class, if the classes have names.
    """

    domains: tuple[Domain, ...]
    classes: int
    class_names: tuple[str, ...] | None = None


class EnvironmentSource(Protocol):
    """Frozen settings, or a plain function, whose call returns all environments of a benchmark."""

    def __call__(self, seed: int, data_dir: Path | None, /) -> Environments:
        """Return the environments; arguments as for ``DataSet``."""
        ...


@frozen
class HeldOut:
    """Domains of DomainBed's split: each environment in two, one part for training unless the environment is tested.

    Training domains are "env{i}_in" of the environments that are not tested; evaluation domains are "env{t}_in" of
    those that are, then "env{i}_out" of all, the names in DomainBed's records. Tested environments are never augmented.

    Where the source names groups of samples, such as patients, each group is in one part: shuffled groups are held out
    as long as they have at most ``holdout_fraction`` of the samples together, and one always is.

    Args:
        test: Indices of the environments that are never trained on.
        trial_seed: Seed of the split; environment i is shuffled by ``seed_hash(trial_seed, i)``.
        holdout_fraction: Fraction of each environment in its out split.
        data_seed: Seed of the source's draws; None: the experiment's seed, as in DomainBed, so that the data differ
            between hyper-parameter draws.

    Raises:
        InputError: A test environment twice or below 0, or a fraction outside 0 to 1; when called, an unknown
            environment, or none left to train on.

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    source: EnvironmentSource  # environments to divide
    test: tuple[int, ...]
    trial_seed: int = 0
    holdout_fraction: float = field(default=0.2, validator=number(0, below=1, above=True))
    data_seed: int | None = None

    def __attrs_post_init__(self) -> None:
        check_test_environments(self.test)

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Return the split environments."""
        environments = self.source(seed if self.data_seed is None else self.data_seed, data_dir)
        domains = environments.domains
        check_test_environments(self.test, tuple(domain.name for domain in domains))
        halves = [self._halves(index, domain) for index, domain in enumerate(domains)]
        return Domains(
            training=tuple(kept for index, (kept, _) in enumerate(halves) if index not in self.test),
            evaluation=(*(halves[index][0] for index in self.test), *(out for _, out in halves)),
            classes=environments.classes,
            class_names=environments.class_names,
        )

    def _halves(self, index: int, domain: Domain) -> tuple[Domain, Domain]:
        try:
            seed = seed_hash(self.trial_seed, index)
            if domain.groups is None:
                kept, out = split_indices(len(domain.labels), self.holdout_fraction, seed)
            else:
                kept, out = split_groups(domain.groups, self.holdout_fraction, seed)
        except InputError as error:
            raise InputError(f"environment {index} ({domain.name}): {error}") from None
        if index in self.test and not isinstance(domain.inputs, Tensor):
            domain = evolve(domain, inputs=domain.inputs.plain())
        whole = evolve(domain, environment=domain.name, groups=None)
        return whole.part(kept, f"env{index}_in"), whole.part(out, f"env{index}_out")


@frozen
class AllEnvironments:
    """Domains that are whole environments, under their own names; feature caches are made of them.

    Raises:
        InputError: When called: the samples of an environment have groups.
    """

    source: EnvironmentSource  # the environments

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Return the environments as training domains."""
        environments = self.source(seed, data_dir)
        for domain in environments.domains:
            if domain.groups is not None:
                raise InputError(
                    f"{domain.name}: got groups of samples, which files of whole environments do not keep; train "
                    "without settings.features, or leave the groups out"
                )
        return Domains(environments.domains, (), environments.classes, environments.class_names)


@frozen
class DataSetEnvironments:
    """Environments that are the domains of a data set: those for training, then those for evaluation.

    Example:
        >>> from fishr.data import ColoredDigits
        >>> [domain.name for domain in DataSetEnvironments(ColoredDigits())(0, None).domains]
        ['flip 0.2', 'flip 0.1', 'reversed', 'gray']
    """

    data: DataSet  # data set whose domains are the environments

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Return the domains as environments."""
        domains = self.data(seed, data_dir)
        return Environments((*domains.training, *domains.evaluation), domains.classes, domains.class_names)


def check_test_environments(test: tuple[int, ...], names: tuple[str, ...] | None = None) -> None:
    """Refuse indices that are repeated, out of range, or of all environments; ``names`` None: not known yet."""
    if len(set(test)) < len(test):
        raise InputError(f"test: got {test}, expected each environment once")
    known = range(len(names)) if names is not None else range(1 << 30)
    for index in test:
        if index not in known:
            listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names or ())) or "0 or more"
            raise InputError(f"test environment: got {index}, expected one of {listed}")
    if names is not None and len(test) == len(names):
        raise InputError(f"test: got {test}, which leaves none of {len(names)} environments to train on")


def seed_hash(*args: object) -> int:
    """Return DomainBed's seed of some values: the MD5 of the text of their tuple, modulo 2³¹."""
    return int(md5(str(args).encode(), usedforsecurity=False).hexdigest(), 16) % 2**31


def split_indices(count: int, holdout_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices that DomainBed trains on and the ⌊count · fraction⌋ that it holds out, both shuffled."""
    held_out = int(count * holdout_fraction)
    if not 0 < held_out < count:
        raise InputError(
            f"holdout_fraction: got {holdout_fraction} of {count} samples, which leaves {held_out} for validation and "
            f"{count - held_out} for training; expected at least one of each"
        )
    indices = list(range(count))
    np.random.RandomState(seed).shuffle(indices)
    return indices[held_out:], indices[:held_out]


def split_groups(groups: Tensor, holdout_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of the samples to train on and to hold out, each group [N] on one side."""
    names, sizes = np.unique(groups.numpy(force=True), return_counts=True)
    if len(names) < 2:
        raise InputError("groups: all samples are of one group, expected at least 2; leave the groups out")
    order = np.random.RandomState(seed).permutation(len(names))
    count = max(1, int(np.searchsorted(sizes[order].cumsum(), holdout_fraction * len(groups), "right")))
    out = np.isin(groups.numpy(force=True), names[order[:count]])
    return np.flatnonzero(~out).tolist(), np.flatnonzero(out).tolist()
