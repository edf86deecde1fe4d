"""One job of a sweep: a data set, an algorithm, test environments and two seeds; and its experiment."""

import json
from collections.abc import Mapping, Sequence
from hashlib import md5, sha256
from types import FunctionType
from typing import Any

import attrs
from attrs import field, frozen

from fishr.data.batches import Minibatch
from fishr.data.held_out import AllEnvironments, HeldOut, check_test_environments
from fishr.data.splits import seed_hash
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.models.heads import LinearHead
from fishr.protocols.domainbed.hyperparameters import Value, hyperparameters
from fishr.protocols.domainbed.methods import ALGORITHMS, objective_of
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.settings import Settings, featurizer_of, source_of
from fishr.training.checks import whole
from fishr.training.experiment import Experiment
from fishr.training.optimizers import Adam


def run_seed(dataset: str, algorithm: str, test_envs: Sequence[int], hparams_seed: int, trial_seed: int) -> int:
    """The seed of one run of a sweep.

    Args:
        dataset: by DomainBed's name.
        algorithm: by DomainBed's name.
        test_envs: indices of the environments that are tested.
        hparams_seed: of the hyper-parameter draw.
        trial_seed: of the splits.

    Returns:
        From 0 to 2³¹ − 1.

    Example:
        >>> run_seed("ColoredMNIST", "Fishr", [2], 0, 0), run_seed("ColoredMNIST", "Fishr", [2], 1, 0)
        (1295264072, 968270702)

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    return seed_hash(dataset, algorithm, list(test_envs), hparams_seed, trial_seed)


def run_folder_name(arguments: Mapping[str, object]) -> str:
    """The name of the folder that DomainBed's own launcher gives a run.

    Args:
        arguments: of its training script: algorithm, data_dir, dataset, holdout_fraction, hparams_seed, seed, task,
            test_envs, trial_seed.

    Returns:
        32 hexadecimal digits: the MD5 of the sorted JSON.

    Example:
        >>> run_folder_name({"dataset": "PACS", "test_envs": [0]})
        '35d4043ee3ff3517a442b7364bb11a61'

    Source:
        The convention of DomainBed (Gulrajani and Lopez-Paz, ICLR 2021).
    """
    return md5(json.dumps(dict(arguments), sort_keys=True).encode(), usedforsecurity=False).hexdigest()


@frozen
class Job:
    """One run of a sweep.

    Args:
        dataset: by DomainBed's name, or one of ``settings.own``.
        algorithm: one of ``ALGORITHMS``.
        test_envs: indices of the environments that are not trained on, ascending.
        hparams_seed: 0 for the default hyper-parameters, else of their draw.
        trial_seed: of the splits.
        settings: shared by the sweep.

    Raises:
        InputError: no such data set, algorithm or environment, or a hyper-parameter that the algorithm has not.

    Example:
        >>> job = Job("ColoredMNIST", "Fishr", (2,), hparams_seed=0, trial_seed=0)
        >>> job.run_seed, job.steps, job.evaluations
        (1295264072, 5001, 51)
        >>> Job("PACS", "ERM", (4,), 0, 0)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: PACS: test environment: got 4, expected one of 0 (A), 1 (C), 2 (P), 3 (S)
    """

    dataset: str
    algorithm: str
    test_envs: tuple[int, ...]
    hparams_seed: int = field(validator=whole(0))
    trial_seed: int = field(validator=whole(0))
    settings: Settings = field(factory=Settings)

    def __attrs_post_init__(self) -> None:
        """Refuse a job that could not run."""
        benchmark = self.settings.benchmark(self.dataset)
        known = (*ALGORITHMS, *self.settings.methods)
        if self.algorithm not in known:
            raise InputError(
                f"algorithm: got {self.algorithm!r}, expected one of {', '.join(known)}; "
                "describe one of your own under settings.methods"
            )
        try:
            check_test_environments(self.test_envs, benchmark.environments)
        except InputError as error:
            raise InputError(f"{self.dataset}: {error}") from None

    @property
    def name(self) -> str:
        """32 hexadecimal digits of everything that decides the result; where the data folder lies is no part of it."""
        return sha256(json.dumps(_content(self), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def key(self) -> JobKey:
        """What its records are known by."""
        return JobKey(self.dataset, self.algorithm, self.test_envs, self.hparams_seed, self.trial_seed)

    @property
    def run_seed(self) -> int:
        """DomainBed's seed of this run."""
        return run_seed(self.dataset, self.algorithm, list(self.test_envs), self.hparams_seed, self.trial_seed)

    @property
    def steps(self) -> int:
        """Updates in all."""
        return self.settings.steps or self.settings.benchmark(self.dataset).steps

    @property
    def evaluate_every(self) -> int:
        """Steps between two records."""
        return self.settings.evaluate_every or self.settings.benchmark(self.dataset).evaluate_every

    @property
    def evaluations(self) -> int:
        """Records it will have: after updates 1, 1 + e, 1 + 2e, … and the last."""
        last = self.steps - 1
        return last // self.evaluate_every + 1 + (last % self.evaluate_every > 0)

    @property
    def hparams(self) -> dict[str, Value]:
        """The drawn hyper-parameters with what the settings fix."""
        mine = self.settings.methods.get(self.algorithm)
        own = None if mine is None else mine.ranges
        drawn = hyperparameters(self.dataset, self.algorithm, self.hparams_seed, self.trial_seed, own)
        return drawn | {name: value for name, value in self.settings.hparams.items() if name in drawn}

    def experiment(self) -> Experiment:
        """The run: DomainBed's data, network, objective and batches.

        Returns:
            An experiment that evaluates when DomainBed records.
        """
        hparams, every = self.hparams, self.evaluate_every
        envs = "+".join(map(str, self.test_envs))
        domains = len(self.settings.benchmark(self.dataset).environments) - len(self.test_envs)
        return Experiment(
            name=f"{self.dataset} {self.algorithm} test {envs} draw {self.hparams_seed} trial {self.trial_seed}",
            data=HeldOut(
                source_of(self.dataset, self.settings, bool(hparams["data_augmentation"])),
                test=self.test_envs,
                trial_seed=self.trial_seed,
                holdout_fraction=self.settings.holdout_fraction,
                data_seed=self.settings.data_seed,
            ),
            featurizer=featurizer_of(self.dataset, self.settings, float(hparams["resnet_dropout"])),
            head=LinearHead(init="torch"),
            loss=CrossEntropy(),
            objective=objective_of(self.algorithm, hparams, self.settings.methods, domains),
            optimizer=Adam(lr=float(hparams["lr"]), weight_decay=float(hparams["weight_decay"])),
            batches=Minibatch(int(hparams["batch_size"]), replace=True),
            steps=self.steps,
            evaluate_every=every,
            evaluate_from=1,
            checkpoint_every=every,
            seed=self.run_seed,
        )


def feature_experiment(dataset: str, settings: Settings) -> Experiment:
    """The experiment whose features ``fishr cache features`` keeps for sweeps over heads: whole environments, plain.

    Args:
        dataset: by DomainBed's name, or one of ``settings.own``.
        settings: of the sweep; its ``features`` do not count.

    Example:
        >>> feature_experiment("RotatedMNIST", Settings(samples=50)).data.source.samples
        50
    """
    bare = attrs.evolve(settings, features={})
    job = Job(dataset, "ERM", (), hparams_seed=0, trial_seed=0, settings=bare)
    return attrs.evolve(
        job.experiment(),
        name=f"{dataset} features",
        data=AllEnvironments(source_of(dataset, bare, augment=False)),
        featurizer=featurizer_of(dataset, bare, dropout=0.0),
        seed=0,
    )


def _content(record: Any) -> Any:
    """Plain values that name a record; fields at their defaults are left out, so that a new field changes no name."""
    match record:
        case Mapping():
            return {str(key): _content(value) for key, value in record.items()}
        case tuple():
            return [_content(value) for value in record]
        case _ if attrs.has(type(record)):
            values = {one.name: getattr(record, one.name) for one in attrs.fields(type(record))}
            defaults = _defaults(type(record))
            told = {name: _content(v) for name, v in values.items() if name not in defaults or defaults[name] != v}
            return {"kind": type(record).__qualname__, **told}
        case FunctionType():
            return f"{record.__module__}:{record.__qualname__}"
        case _:
            return record


def _defaults(cls: type[Any]) -> dict[str, Any]:
    defaults = {one.name: one.default for one in attrs.fields(cls) if one.default is not attrs.NOTHING}
    return {name: value.factory() if hasattr(value, "factory") else value for name, value in defaults.items()}
