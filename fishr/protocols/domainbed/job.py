"""One job of a sweep: a data set, a method, test environments and two seeds; and the experiment that it is."""

import json
from collections.abc import Mapping
from functools import cached_property
from hashlib import sha256
from types import FunctionType
from typing import Any, cast

import attrs
from attrs import field, frozen

from fishr.checks import whole
from fishr.data.batches import Minibatch
from fishr.data.environments import AllEnvironments, HeldOut, check_test_environments, seed_hash
from fishr.errors import InputError
from fishr.losses import CrossEntropy
from fishr.methods.ranges import Value
from fishr.models.heads import LinearHead
from fishr.penalties.schedules import Product
from fishr.protocols.domainbed.datasets import STEPS
from fishr.protocols.domainbed.hyperparameters import hyperparameters
from fishr.protocols.domainbed.records import JobKey
from fishr.protocols.domainbed.settings import Settings
from fishr.training.experiment import Experiment
from fishr.training.optimizers import Adam, Optimizer


@frozen
class Job:
    """One run of a sweep."""

    dataset: str  # DomainBed's name, or one of ``settings.own``
    algorithm: str  # one of ``METHODS``, or of ``settings.methods``
    test_envs: tuple[int, ...]  # indices, ascending
    hparams_seed: int = field(validator=whole(0))  # 0: the default hyper-parameters
    trial_seed: int = field(validator=whole(0))  # of the splits
    settings: Settings = field(factory=Settings)

    def __attrs_post_init__(self) -> None:
        benchmark = self.settings.benchmark(self.dataset)
        self.settings.method(self.algorithm)
        try:
            check_test_environments(self.test_envs, benchmark.environments)
        except InputError as error:
            raise InputError(f"{self.dataset}: {error}") from None

    @cached_property
    def name(self) -> str:
        """32 hexadecimal digits of everything that decides the result; the place of the data folder does not."""
        return sha256(json.dumps(_content(self), sort_keys=True).encode()).hexdigest()[:32]

    @property
    def key(self) -> JobKey:
        """Key of its records."""
        return JobKey(self.dataset, self.algorithm, self.test_envs, self.hparams_seed, self.trial_seed)

    @property
    def run_seed(self) -> int:
        """DomainBed's seed of this run, 0 to 2³¹ − 1."""
        return seed_hash(self.dataset, self.algorithm, list(self.test_envs), self.hparams_seed, self.trial_seed)

    @property
    def steps(self) -> int:
        return self.settings.steps or STEPS

    @property
    def evaluate_every(self) -> int:
        return self.settings.evaluate_every or self.settings.benchmark(self.dataset).evaluate_every

    @property
    def evaluations(self) -> int:
        """Number of records: after updates 1, 1 + e, 1 + 2e, … and the last."""
        last = self.steps - 1
        return last // self.evaluate_every + 1 + (last % self.evaluate_every > 0)

    @cached_property
    def hparams(self) -> dict[str, Value]:
        """The drawn hyper-parameters, with those that the settings fix."""
        ranges = self.settings.method(self.algorithm).ranges_on(self.dataset)
        drawn = hyperparameters(self.dataset, ranges, self.hparams_seed, self.trial_seed)
        return drawn | {name: value for name, value in self.settings.hparams.items() if name in drawn}

    @property
    def changes(self) -> dict[str, Any]:
        """Fields of the experiment that the method or the settings change, beside the objective."""
        return self._changes(self.hparams)

    def _changes(self, hparams: dict[str, Value]) -> dict[str, Any]:
        settings, own = self.settings, self.settings.methods.get(self.algorithm)
        changes = settings.method(self.algorithm).changes(hparams)
        for name in ("lr_schedule", "lr_factors", "transform", "descent", "average"):
            shared: Any = getattr(settings, name)
            replaced = name.startswith("lr_") and own is not None and getattr(own, name) is not None
            if shared is None or replaced:
                continue
            if name in changes and name != "lr_schedule":
                raise InputError(
                    f"settings.{name}: got it for all methods, but {self.algorithm} has one of its own; give the "
                    f"other methods theirs under settings.methods"
                )
            # A schedule of the method is that of a second learning rate: factors multiply.
            changes |= {name: Product((shared, changes[name])) if name in changes else shared}
        # In 2021 batch normalization is frozen, so that one pass of all domains is the same.
        passes = settings.method(self.algorithm).passes if settings.protocol == "domainbed-2024" else None
        return changes if passes is None else changes | {"passes": passes}

    @property
    def batch_size(self) -> int:
        return int(self.hparams["batch_size"])

    def experiment(self) -> Experiment:
        """Return DomainBed's run: its data, network, objective and batches, evaluated when DomainBed records."""
        settings, hparams, method = self.settings, self.hparams, self.settings.method(self.algorithm)
        domains = len(settings.benchmark(self.dataset).environments) - len(self.test_envs)
        experiment = Experiment(
            name=str(self.key),
            data=HeldOut(
                settings.environments(self.dataset, bool(hparams["data_augmentation"])),
                test=self.test_envs,
                trial_seed=self.trial_seed,
                holdout_fraction=settings.holdout_fraction,
                data_seed=settings.data_seed,
            ),
            featurizer=method.featurizer(settings.network(self.dataset, float(hparams["resnet_dropout"])), hparams),
            head=settings.head or LinearHead(init="torch"),
            loss=settings.loss or CrossEntropy(),
            objective=method.objective_for(hparams, domains),
            optimizer=_with_drawn(settings.optimizer or Adam(lr=1.0), hparams),
            batches=Minibatch(int(hparams["batch_size"]), replace=True),
            steps=self.steps,
            evaluate_every=self.evaluate_every,
            evaluate_from=1,
            checkpoint_every=self.evaluate_every,
            seed=self.run_seed,
        )
        changes = self._changes(hparams)
        on_features = self.dataset in settings.features and settings.features_at is None
        if on_features and any(layer.startswith("featurizer") for layer in changes.get("lr_factors") or ()):
            raise InputError(
                f"lr_factors: got a factor of the featurizer, of {self.algorithm} or the settings, on cached features, "
                "whose network does not train; set settings.features_at to train the layers above a cached one, or "
                "leave it out"
            )
        return attrs.evolve(experiment, **changes)


def feature_experiment(dataset: str, settings: Settings) -> Experiment:
    """Return the experiment whose features ``fishr sweep features`` caches: whole environments, not augmented."""
    bare = attrs.evolve(settings, features={})
    job = Job(dataset, "ERM", (), hparams_seed=0, trial_seed=0, settings=bare)
    return attrs.evolve(
        job.experiment(),
        name=f"{dataset} features",
        data=AllEnvironments(bare.environments(dataset, augment=False)),
        featurizer=bare.network(dataset, dropout=0.0),
        seed=0,
    )


def _with_drawn(optimizer: Optimizer, hparams: Mapping[str, Value]) -> Optimizer:
    """Return the optimizer with the drawn values in its fields of their names."""
    known: Any = attrs.fields_dict(cast(Any, type(optimizer)))
    drawn = {name: float(hparams[name]) for name in ("lr", "weight_decay") if name in known}
    return attrs.evolve(cast(Any, optimizer), **drawn)


def _content(record: Any) -> Any:
    """Return plain values that name a record; defaults are left out, so that a new field changes no name."""
    match record:
        case Mapping():
            return {str(key): _content(value) for key, value in record.items()}
        case tuple():
            return [_content(value) for value in record]
        case _ if attrs.has(type(record)):
            pairs = [(one, getattr(record, one.name)) for one in attrs.fields(type(record))]
            changed = {one.name: _content(value) for one, value in pairs if _default(one, record) != value}
            return {"kind": type(record).__qualname__, **changed}
        case FunctionType():
            return f"{record.__module__}:{record.__qualname__}"
        case _:
            return record


def _default(one: "attrs.Attribute[Any]", record: Any) -> Any:
    """Return a field's default; a field without one has ``attrs.NOTHING``, which equals no value."""
    default: Any = one.default
    if not hasattr(default, "factory"):
        return default
    return default.factory(record) if default.takes_self else default.factory()
