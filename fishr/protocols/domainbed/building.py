"""What a sweep's settings make of a data set: where its environments come from, and the network before the head."""

from fishr.data.benchmark_digits import DomainBedColoredMNIST, RotatedMNIST
from fishr.data.cached_environments import FeatureEnvironments
from fishr.data.held_out import Source
from fishr.data.images.folders import ImageFolders
from fishr.data.images.lists import ImageList
from fishr.models.featurizers import MNISTCNN, FeatureDropout, Featurizer
from fishr.models.resnet import ResNet
from fishr.models.timm_backbone import TimmBackbone
from fishr.protocols.domainbed.settings import Settings


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
