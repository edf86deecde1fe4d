"""The data sets of the benchmark: environments, classes, steps, and how often DomainBed evaluates."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from fishr.data.mnist import ANGLES, COLOR_NAMES
from fishr.data.sources.image_sets import IMAGE_SETS, ImageSet

STEPS = 5001


@frozen
class Benchmark:
    """Properties of a data set that the benchmark fixes."""

    environments: tuple[str, ...]
    evaluate_every: int = 300  # steps
    folder: str = ""  # of its images in the data folder; empty: made of MNIST
    tested: tuple[int, ...] | None = None  # environments; None: all


def _of(images: ImageSet) -> Benchmark:
    titles = tuple(environment.title for environment in images.environments)
    spurious = images.name.startswith("Spawrious")
    every = 1000 if images.name == "DomainNet" else 100 if spurious else 300
    return Benchmark(titles, every, images.folder, tested=(0,) if spurious else None)


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "ColoredMNIST": Benchmark(COLOR_NAMES, 100),
        "RotatedMNIST": Benchmark(tuple(str(angle) for angle in ANGLES), 100),
        **{name: _of(images) for name, images in IMAGE_SETS.items()},
    }
)
"""By the names that DomainBed and its records use."""
