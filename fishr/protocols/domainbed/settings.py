"""Settings that all jobs of a sweep share, with data sets and methods of one's own."""

from typing import Any, Literal, get_args

from attrs import Factory, field, frozen
from attrs.validators import optional

from fishr.data.cached_environments import FeatureEnvironments
from fishr.data.held_out import Source
from fishr.data.images.folders import ImageFolders
from fishr.data.images.lists import ImageList
from fishr.data.mnist import DomainBedColoredMNIST, RotatedMNIST
from fishr.errors import InputError
from fishr.models.featurizers import MNISTCNN, FeatureDropout, Featurizer
from fishr.models.resnet import ResNet
from fishr.models.timm_backbone import TimmBackbone
from fishr.protocols.domainbed.datasets import BENCHMARKS, Benchmark
from fishr.protocols.domainbed.hyperparameters import Value, hyperparameters
from fishr.protocols.domainbed.methods import ALGORITHMS, OwnMethod
from fishr.training.checks import number, one_of, whole

Protocol = Literal["domainbed-2021", "domainbed-2024"]
Validation = Literal["clean", "augmented"]
Backbone = Literal["resnet18", "resnet50"]
# DomainBed's switches that are off in all its published tables.
UNUSED = ("class_balanced", "nonlinear_classifier")


def _protocol(settings: object, attribute: Any, value: Protocol) -> None:
    one_of(*get_args(Protocol))(settings, attribute, value)


def _validation(settings: object, attribute: Any, value: Validation) -> None:
    one_of(*get_args(Validation))(settings, attribute, value)


@frozen
class OwnData:
    """A data set of one's own.

    Args:
        path: a folder of ENVIRONMENT/CLASS/IMAGE, or a .csv or .json list of images; a relative one starts at the
            data folder.
        environments: their names, in the order of their indices (sorted); a plan must know how many there are.
        evaluate_every: steps between two records.

    Raises:
        InputError: fewer than two environments, or some out of order.

    Example:
        >>> OwnData("hospitals", ("north", "south")).environments
        ('north', 'south')
    """

    path: str
    environments: tuple[str, ...]
    evaluate_every: int = field(default=300, validator=whole(1))

    def __attrs_post_init__(self) -> None:
        """Refuse environments that indices would name wrongly."""
        if len(self.environments) < 2 or list(self.environments) != sorted(set(self.environments)):
            raise InputError(f"environments: got {self.environments}, expected two or more names, once each and sorted")


@frozen
class Settings:
    """What all jobs of a sweep share; every result records it.

    Args:
        protocol: ``"domainbed-2021"``: torchvision's ImageNet ResNet-50 with frozen BatchNorm, as in all published
            tables until 2024; ``"domainbed-2024"``: timm's resnet50.ram_in1k, whose BatchNorm trains.
        validation: ``"clean"`` scores all splits on plain images; ``"augmented"`` scores those of training environments
            with random augmentation, as DomainBed does.
        steps: updates of each job; None: the benchmark's 5,001.
        evaluate_every: steps between two records; None: the benchmark's.
        samples: rows of each environment at most; None: all.
        image_size: side of the images, pixels.
        backbone: another torchvision ResNet than the protocol's; None: the protocol's.
        weights: of a torchvision ResNet: "imagenet", "random", or the path of a file.
        hparams: hyper-parameters that no draw changes, such as batch_size; an algorithm takes those it has.
        data_seed: of what Colored and Rotated MNIST draw; None: the run's seed, as in DomainBed.
        holdout_fraction: share of each environment held out.
        features: by data set, a file of ``fishr cache features`` to train heads alone on.
        images: by data set, a file of ``fishr cache images`` in place of its folder.
        own: data sets of one's own by name.
        methods: algorithms of one's own by name.

    Raises:
        InputError: a setting outside its range, a hyper-parameter that no algorithm has, or a name that the benchmark
            has given already.

    Example:
        >>> Settings(steps=100, hparams={"batch_size": 16}).protocol
        'domainbed-2021'
    """

    protocol: Protocol = field(default="domainbed-2021", validator=_protocol)
    validation: Validation = field(default="clean", validator=_validation)
    steps: int | None = field(default=None, validator=optional(whole(1)))
    evaluate_every: int | None = field(default=None, validator=optional(whole(1)))
    samples: int | None = field(default=None, validator=optional(whole(2)))
    image_size: int = field(default=224, validator=whole(8))
    backbone: Backbone | None = field(default=None, validator=optional(one_of(*get_args(Backbone))))
    weights: str = "imagenet"
    hparams: dict[str, bool | int | float] = Factory(dict[str, bool | int | float])
    data_seed: int | None = field(default=None, validator=optional(whole(0)))
    holdout_fraction: float = field(default=0.2, validator=number(0.0, below=1.0, above=True))
    features: dict[str, str] = Factory(dict[str, str])
    images: dict[str, str] = Factory(dict[str, str])
    own: dict[str, OwnData] = Factory(dict[str, OwnData])
    methods: dict[str, OwnMethod] = Factory(dict[str, OwnMethod])

    def __attrs_post_init__(self) -> None:
        """Refuse names that are taken, and hyper-parameters that would be passed over in silence."""
        for name in (*(n for n in self.own if n in BENCHMARKS), *(n for n in self.methods if n in ALGORITHMS)):
            raise InputError(f"settings: got one of your own called {name!r}, as the benchmark's is; rename it")
        defaults = self._defaults()
        for name, value in self.hparams.items():
            if name not in defaults:
                raise InputError(f"hparams: got {name!r}, expected some of {', '.join(sorted(defaults))}")
            default = defaults[name]
            fits = isinstance(value, bool) if isinstance(default, bool) else not isinstance(value, bool)
            if not fits or (isinstance(default, int) and not isinstance(value, int)):
                expected = "true or false" if isinstance(default, bool) else "a whole number"
                raise InputError(f"hparams: got {name} = {value!r}, expected {expected}")

    def _defaults(self) -> dict[str, Value]:
        found = {name: one.default for method in self.methods.values() for name, one in method.ranges.items()}
        for algorithm in ALGORITHMS:
            found |= hyperparameters("PACS", algorithm, hparams_seed=0, trial_seed=0)
        return {name: default for name, default in found.items() if name not in UNUSED}

    def benchmark(self, dataset: str) -> Benchmark:
        """What is fixed of a data set.

        Raises:
            InputError: no such data set.
        """
        if dataset in self.own:
            mine = self.own[dataset]
            return Benchmark(mine.environments, 0, mine.evaluate_every, folder=mine.path)
        if dataset not in BENCHMARKS:
            raise InputError(
                f"data set: got {dataset!r}, expected one of {', '.join([*BENCHMARKS, *self.own])}; "
                "name one of your own under settings.own"
            )
        return BENCHMARKS[dataset]


def source_of(dataset: str, settings: Settings, augment: bool = True) -> Source:
    """What builds a data set's environments under a sweep's settings.

    Args:
        dataset: by DomainBed's name, or one of ``settings.own``.
        settings: of the sweep.
        augment: whether training images are augmented.

    Raises:
        InputError: no such data set.

    Example:
        >>> source_of("RotatedMNIST", Settings(samples=100))
        RotatedMNIST(samples=100)
    """
    benchmark, samples = settings.benchmark(dataset), settings.samples
    if dataset in settings.features:
        return FeatureEnvironments(settings.features[dataset])
    if dataset == "ColoredMNIST":
        return DomainBedColoredMNIST(samples)
    if dataset == "RotatedMNIST":
        return RotatedMNIST(samples)
    # Where folders in the order of their names are not in the benchmark's order, they are named in its order.
    named = dataset in settings.own or benchmark.tested is not None
    build = ImageList if benchmark.folder.endswith((".csv", ".json", ".jsonl")) else ImageFolders
    return build(
        benchmark.folder,
        size=settings.image_size,
        augment=augment,
        augment_evaluation=augment and settings.validation == "augmented",
        environments=benchmark.environments if named else None,
        samples=samples,
        cache=settings.images.get(dataset),
    )


def featurizer_of(dataset: str, settings: Settings, dropout: float) -> Featurizer:
    """The network before the head under a sweep's settings.

    Args:
        dataset: by DomainBed's name, or one of ``settings.own``.
        settings: of the sweep.
        dropout: rate on the features of a ResNet.

    Example:
        >>> featurizer_of("ColoredMNIST", Settings(), dropout=0.5)
        MNISTCNN()
    """
    if dataset in settings.features:
        return FeatureDropout(dropout)
    if settings.benchmark(dataset).small:
        return MNISTCNN()
    if settings.backbone is None and settings.protocol == "domainbed-2024":
        return TimmBackbone("resnet50.ram_in1k", pretrained=True, freeze_norm=False, dropout=dropout)
    depth = 18 if settings.backbone == "resnet18" else 50
    frozen_norm = settings.protocol == "domainbed-2021"
    return ResNet(depth=depth, weights=settings.weights, freeze_norm=frozen_norm, dropout=dropout)
