"""The domains that a choice of test environments and DomainBed's split make of a benchmark's environments."""

from pathlib import Path

from attrs import evolve, frozen
from torch import Tensor

from fishr.data.data_set import EnvironmentSource
from fishr.data.domains import Domain, Domains
from fishr.data.splits import seed_hash, split_rows
from fishr.errors import InputError


@frozen
class HeldOut:
    """Each environment split in two; those not tested are trained on, everything else only evaluates.

    Training domains are "env{i}_in" of the environments that are not tested; evaluation domains are "env{t}_in" of
    those that are, then "env{i}_out" of all, so that the scores of a run bear the names of DomainBed's records.
    Environments that are tested are never augmented.

    Args:
        source: builds the environments.
        test: indices of the environments that are never trained on.
        trial_seed: of the split; environment i is shuffled by ``seed_hash(trial_seed, i)``.
        holdout_fraction: share of each environment in its out split.
        data_seed: of what the source draws; None: the experiment's seed, as in DomainBed, so that the data differ
            between hyper-parameter draws.

    Raises:
        InputError: a test environment twice or below 0, a fraction outside 0 to 1; when called, one that there is
            not, or none left to train on.

    Example:
        >>> from fishr.data import RotatedMNIST
        >>> HeldOut(RotatedMNIST(), test=(0, 0))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: test: got (0, 0), expected each environment once

    Source:
        Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021.
    """

    source: EnvironmentSource
    test: tuple[int, ...]
    trial_seed: int = 0
    holdout_fraction: float = 0.2
    data_seed: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse what no data set could be split by."""
        check_test_environments(self.test)
        if not 0 < self.holdout_fraction < 1:
            raise InputError(f"holdout_fraction: got {self.holdout_fraction}, expected more than 0 and less than 1")

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Build the environments and split them."""
        environments = self.source(seed if self.data_seed is None else self.data_seed, data_dir)
        count = len(environments.domains)
        check_test_environments(self.test, tuple(domain.name for domain in environments.domains))
        plain = [_plain(domain) if index in self.test else domain for index, domain in enumerate(environments.domains)]
        halves = [self._halves(index, domain) for index, domain in enumerate(plain)]
        trained = [index for index in range(count) if index not in self.test]
        tested = [halves[index][0] for index in self.test]
        return Domains(
            training=tuple(halves[index][0] for index in trained),
            evaluation=(*tested, *(out for _, out in halves)),
            classes=environments.classes,
        )

    def _halves(self, index: int, domain: Domain) -> tuple[Domain, Domain]:
        try:
            rows = split_rows(len(domain.labels), self.holdout_fraction, seed_hash(self.trial_seed, index))
        except InputError as error:
            raise InputError(f"environment {index} ({domain.name}): {error}") from None
        kept, held_out = rows
        known = evolve(domain, environment=domain.name)
        return known.part(kept, f"env{index}_in"), known.part(held_out, f"env{index}_out")


@frozen
class AllEnvironments:
    """Every environment whole, under its own name: what features are cached of.

    Args:
        source: builds the environments.

    Example:
        >>> from fishr.data import RotatedMNIST
        >>> AllEnvironments(RotatedMNIST(samples=5)).source.samples
        5
    """

    source: EnvironmentSource

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Build the environments; all of them count as training domains."""
        environments = self.source(seed, data_dir)
        return Domains(environments.domains, (), environments.classes)


def check_test_environments(test: tuple[int, ...], names: tuple[str, ...] | None = None) -> None:
    """Refuse test environments that are not a data set's.

    Args:
        test: their indices.
        names: of the data set's environments; None while they are not known.

    Raises:
        InputError: an index twice or out of range, or all of the environments.

    Example:
        >>> check_test_environments((4,), ("art", "photo"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: test environment: got 4, expected one of 0 (art), 1 (photo)
    """
    if len(set(test)) < len(test):
        raise InputError(f"test: got {test}, expected each environment once")
    known = range(len(names)) if names is not None else range(1 << 30)
    for index in test:
        if index not in known:
            listed = ", ".join(f"{i} ({name})" for i, name in enumerate(names or ())) or "0 or more"
            raise InputError(f"test environment: got {index}, expected one of {listed}")
    if names is not None and len(test) == len(names):
        raise InputError(f"test: got {test}, which leaves none of {len(names)} environments to train on")


def _plain(domain: Domain) -> Domain:
    return domain if isinstance(domain.inputs, Tensor) else evolve(domain, inputs=domain.inputs.plain())
