"""Settings that all jobs of a sweep share, with custom data sets and methods."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, cast, get_args

import attrs
from attrs import Factory, evolve, field, frozen
from attrs.validators import optional

from fishr.averages.weight_average import WeightAverage
from fishr.checks import number, one_of, whole
from fishr.data.cached_features import FeatureEnvironments
from fishr.data.domains import DataSet
from fishr.data.environments import DataSetEnvironments, EnvironmentSource
from fishr.data.images.augmentation import Augmentation, DomainBedAugmentation, NoAugmentation
from fishr.data.images.image_data import ImageFolders, ImageList
from fishr.data.images.image_environments import ImageSource
from fishr.data.images.preprocessing import Preprocessing
from fishr.data.mnist import DomainBedColoredMNIST, RotatedMNIST
from fishr.data.numpy_data import NumPyData
from fishr.descents.descent import Descent
from fishr.errors import InputError
from fishr.losses import Loss, predicts_classes
from fishr.methods.every_method import METHODS
from fishr.methods.method import Method
from fishr.methods.ranges import Value
from fishr.models.featurizers import MNISTCNN, FeatureDropout, Featurizer
from fishr.models.heads import Head
from fishr.models.resnet import ResNet
from fishr.models.timm_backbone import TimmBackbone, timm_preprocessing
from fishr.penalties.schedules import Schedule
from fishr.protocols.domainbed.datasets import BENCHMARKS, Benchmark
from fishr.protocols.domainbed.hyperparameters import hyperparameters
from fishr.protocols.domainbed.methods import OwnMethod
from fishr.training.layers_above import LayersAbove
from fishr.training.optimizers import Optimizer
from fishr.transforms.batch_transform import BatchTransform

Protocol = Literal["domainbed-2021", "domainbed-2024"]
Validation = Literal["clean", "augmented"]
_IMAGE_SIZE = 224
_TORCHVISION: dict[str, Literal[18, 50]] = {"resnet18": 18, "resnet50": 50}
# DomainBed's switches that are off in all its published tables.
_UNUSED = ("class_balanced", "nonlinear_classifier")


@frozen
class OwnData:
    """A custom data set: images at a path or any data, whose domains are the environments."""

    path: str = ""  # folder or list of images, relative to the data folder
    environments: tuple[str, ...] = ()  # names in the order of their indices; sorted for images
    evaluate_every: int = field(default=300, validator=whole(1))  # steps between evaluations
    data: DataSet | None = None  # any data set instead of a path; needs ``settings.featurizer``
    source: EnvironmentSource | None = (
        None  # source of environments instead of both, such as images in any columns; its size is kept
    )

    def __attrs_post_init__(self) -> None:
        given = [name for name, value in (("path", self.path), ("data", self.data), ("source", self.source)) if value]
        if len(given) != 1:
            raise InputError(f"path: got {' and '.join(given) or 'none'}, expected one of path, data and source")
        names = set(self.environments)
        if len(names) < 2 or len(names) < len(self.environments):
            raise InputError(f"environments: got {self.environments}, expected two or more names, once each")
        if self.path and list(self.environments) != sorted(names):
            raise InputError(f"environments: got {self.environments}, expected sorted names, as folders are")


@frozen
class Settings:
    """Settings that all jobs of a sweep share; every result records them.

    Raises:
        InputError: a number or a choice outside its range, a name that is built in already, or parts that exclude each
            other.

    Example:
        >>> Settings(steps=100).protocol
        'domainbed-2021'
    """

    # 2021: torchvision's ImageNet ResNet-50, frozen BatchNorm; 2024: timm's resnet50.ram_in1k, trained
    protocol: Protocol = field(default="domainbed-2021", validator=one_of(*get_args(Protocol)))
    # "augmented" scores training environments with random augmentation, as DomainBed does
    validation: Validation = field(default="clean", validator=one_of(*get_args(Validation)))
    steps: int | None = field(
        default=None, validator=optional(whole(1))
    )  # number of updates; None: the benchmark's 5,001
    evaluate_every: int | None = field(
        default=None, validator=optional(whole(1))
    )  # steps between evaluations; None: the benchmark's
    samples: int | None = field(
        default=None, validator=optional(whole(2))
    )  # largest number of samples of each environment; None: all
    image_size: int = field(default=_IMAGE_SIZE, validator=whole(8))  # side of an input, pixels
    # size and normalization of images; None: those of a backbone of timm at ``image_size``, else ImageNet's
    preprocessing: Preprocessing | None = None
    augment: Augmentation | None = None  # augmentation of training images; None: DomainBed's
    # network: torchvision's "resnet18" or "resnet50", any other name of timm; None: the protocol's
    backbone: str | None = None
    weights: str = "imagenet"  # weights of the backbone: "imagenet" for the published ones, "random", or a file
    # fixed values of hyper-parameters that are then not drawn; a method uses those that it has
    hparams: dict[str, Value] = Factory(dict[str, Value])
    # seed of Colored and Rotated MNIST; None: the run's
    data_seed: int | None = field(default=None, validator=optional(whole(0)))
    holdout_fraction: float = field(
        default=0.2, validator=number(0.0, below=1.0, above=True)
    )  # share of each environment that is held out
    # file of ``fishr sweep features`` by data set, on which heads are trained
    features: dict[str, str] = Factory(dict[str, str])
    # layer of the network whose outputs these files have; the layers above it train too. None: features
    features_at: str | None = None
    images: dict[str, str] = Factory(dict[str, str])  # file of ``fishr cache images`` by data set
    own: dict[str, OwnData] = Factory(dict[str, OwnData])  # custom data sets by name
    methods: dict[str, OwnMethod] = Factory(dict[str, OwnMethod])  # custom methods by name
    featurizer: Featurizer | None = None  # network; None: the protocol's
    head: Head | None = None  # head; None: a linear one, initialized as torch does
    loss: Loss | None = None  # per-sample loss; None: cross-entropy
    optimizer: Optimizer | None = None  # optimizer; None: Adam. It gets the drawn lr and weight_decay
    lr_schedule: Schedule | None = None  # factor of the drawn learning rate, as in ``Experiment``
    lr_factors: dict[str, Schedule] | None = None  # factors of the learning rates of layers
    transform: BatchTransform | None = None  # transform of all methods; none of them may have its own
    descent: Descent | None = None  # descent, as above
    average: WeightAverage | None = None  # average of weights, as above

    def __attrs_post_init__(self) -> None:
        for name in (*(n for n in self.own if n in BENCHMARKS), *(n for n in self.methods if n in METHODS)):
            raise InputError(f"settings: got one of your own called {name!r}, as the benchmark's is; rename it")
        for name, mine in self.own.items():
            images = mine.path or isinstance(mine.source, ImageSource)
            if not images and self.featurizer is None and name not in self.features:
                raise InputError(f"own.{name}: got data without a network, expected settings.featurizer to name it")
        if self.loss is not None and not predicts_classes(self.loss):
            name = type(self.loss).__name__
            raise InputError(f"loss: {name} predicts no class, expected one that does; accuracies select the models")
        if self.preprocessing is not None and self.image_size not in (_IMAGE_SIZE, self.preprocessing.size):
            raise InputError(
                f"image_size: got {self.image_size} with a preprocessing of size {self.preprocessing.size}, expected "
                "one of them; leave image_size out"
            )
        self._check_hparams()

    def _check_hparams(self) -> None:
        """Refuse hyper-parameters that no method would take."""
        defaults = dict[str, Value]()
        for name in (*METHODS, *self.methods) if self.hparams else ():
            defaults |= hyperparameters("PACS", self.method(name).ranges_on("PACS"), hparams_seed=0, trial_seed=0)
        for name, value in self.hparams.items():
            if name not in defaults or name in _UNUSED:
                known = ", ".join(sorted(defaults.keys() - set(_UNUSED)))
                raise InputError(f"hparams: got {name!r}, expected some of {known}")
            kind = type(defaults[name])
            if type(value) is not kind and not (kind is float and type(value) is int):
                expected = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}[kind]
                raise InputError(f"hparams: got {name} = {value!r}, expected {expected}")

    @cached_property
    def _own_methods(self) -> dict[str, Method]:
        return {name: own.method() for name, own in self.methods.items()}

    def method(self, name: str) -> Method:
        """Return a method by name."""
        if name in self.methods:
            return self._own_methods[name]
        if name not in METHODS:
            known = (*METHODS, *self.methods)
            raise InputError(
                f"algorithm: got {name!r}, expected one of {', '.join(known)}; "
                f"{_near(name, known)}describe one of your own under settings.methods"
            )
        return METHODS[name]

    def benchmark(self, dataset: str) -> Benchmark:
        """Return the properties of a data set."""
        if dataset in self.own:
            mine = self.own[dataset]
            return Benchmark(mine.environments, mine.evaluate_every, mine.path)
        if dataset not in BENCHMARKS:
            raise InputError(
                f"data set: got {dataset!r}, expected one of {', '.join([*BENCHMARKS, *self.own])}; "
                f"{_near(dataset, (*BENCHMARKS, *self.own))}name one of your own under settings.own"
            )
        return BENCHMARKS[dataset]

    def environments(self, dataset: str, augment: bool = True) -> EnvironmentSource:
        """Return what builds a data set's environments; ``augment``: whether training images are augmented."""
        benchmark, samples = self.benchmark(dataset), self.samples
        if dataset in self.features:
            return FeatureEnvironments(self.features[dataset], at=self.features_at)
        if dataset in self.own and (data := self.own[dataset].data) is not None:
            return DataSetEnvironments(data)
        if dataset in self.own and (source := self.own[dataset].source) is not None:
            return self._adapted(source, dataset, augment)
        if dataset == "ColoredMNIST":
            return DomainBedColoredMNIST(samples)
        if dataset == "RotatedMNIST":
            return RotatedMNIST(samples)
        # Sorted folders are in the benchmark's order, except where only some environments are tested.
        named = dataset in self.own or benchmark.tested is not None
        own = self._preprocessing()
        build = ImageList if benchmark.folder.endswith((".csv", ".json", ".jsonl")) else ImageFolders
        return build(
            benchmark.folder,
            size=self.image_size if own is None else own.size,
            preprocessing=own,
            augment=(self.augment or DomainBedAugmentation()) if augment else NoAugmentation(),
            augment_evaluation=augment and self.validation == "augmented",
            environments=benchmark.environments if named else None,
            samples=samples,
            cache=self.images.get(dataset),
        )

    def _preprocessing(self) -> Preprocessing | None:
        name = None if self.featurizer is not None or self.backbone in _TORCHVISION else self.backbone
        if self.preprocessing is not None or name is None:
            return self.preprocessing
        return evolve(timm_preprocessing(name), size=self.image_size)

    def _adapted(self, source: EnvironmentSource, dataset: str, augment: bool) -> EnvironmentSource:
        """Return a source of images or arrays with the settings of the sweep in its fields of their names."""
        if not isinstance(source, ImageSource | NumPyData):
            return source
        augmentation = self.augment or getattr(source, "augment", None)
        wanted = {
            "environments": self.own[dataset].environments,
            "samples": self.samples or getattr(source, "samples", None),
            "augment": augmentation if augment else NoAugmentation(),
            "augment_evaluation": augment and self.validation == "augmented",
            "cache": self.images.get(dataset) or getattr(source, "cache", None),
        }
        fields = attrs.fields_dict(type(source))
        return evolve(cast(Any, source), **{name: value for name, value in wanted.items() if name in fields})

    def network(self, dataset: str, dropout: float) -> Featurizer:
        """Return the network before the head; ``dropout``: rate on its features, of images."""
        if dataset in self.features:
            if self.features_at is None:
                return FeatureDropout(dropout)
            whole = evolve(self, features={}).network(dataset, dropout)
            return LayersAbove(whole, self.features_at, self._input_shape(dataset))
        if self.featurizer is not None:
            return self.featurizer
        images = dataset in self.own and isinstance(self.own[dataset].source, ImageSource)
        if not images and not self.benchmark(dataset).folder:
            return MNISTCNN()
        frozen_norm = self.protocol == "domainbed-2021"
        name = self.backbone or ("resnet50" if frozen_norm else "resnet50.ram_in1k")
        if name in _TORCHVISION:
            return ResNet(_TORCHVISION[name], self.weights, freeze_norm=frozen_norm, dropout=dropout)
        file = None if self.weights in ("imagenet", "random") else self.weights
        return TimmBackbone(name, self.weights != "random", freeze_norm=frozen_norm, dropout=dropout, weights=file)

    def _input_shape(self, dataset: str) -> tuple[int, ...]:
        source = evolve(self, features={}).environments(dataset)
        if isinstance(source, ImageSource):
            return (3, source.size, source.size)
        raise InputError(f"features_at: got one for {dataset}, which is no data set of images; expected one of images")


def _near(name: str, known: Iterable[str]) -> str:
    """Return a question for the name that is meant, whatever its case, or nothing."""
    folded = {one.casefold(): one for one in known}
    close = get_close_matches(name.casefold(), folded, 1)
    return f"did you mean {folded[close[0]]}? Or " if close else ""
