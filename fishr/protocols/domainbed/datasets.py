"""The data sets of the benchmark: environments, classes, steps, and how often DomainBed evaluates."""

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from fishr.data.mnist import ANGLES, COLOR_NAMES

STEPS = 5001


@frozen
class Benchmark:
    """What the benchmark fixes of one data set.

    Args:
        environments: Names in tables, in the order of their indices.
        classes: C.
        evaluate_every: Steps between two records.
        folder: Folder of its images in the data folder; empty: made of MNIST.
        steps: Updates in all.
        tested: Environments that are tested; None: all.
    """

    environments: tuple[str, ...]
    classes: int
    evaluate_every: int = 300
    folder: str = ""
    steps: int = STEPS
    tested: tuple[int, ...] | None = None

    @property
    def small(self) -> bool:
        """Whether its network is the small one of MNIST."""
        return not self.folder


def _spawrious(size: str, level: str) -> Benchmark:
    folder = f"spawrious224/{size}_{level}"
    return Benchmark(("Test", "SC_group_1", "SC_group_2"), 4, 100, folder, tested=(0,))


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "ColoredMNIST": Benchmark(COLOR_NAMES, 2, 100),
        "RotatedMNIST": Benchmark(tuple(str(angle) for angle in ANGLES), 10, 100),
        "VLCS": Benchmark(("C", "L", "S", "V"), 5, folder="VLCS"),
        "PACS": Benchmark(("A", "C", "P", "S"), 7, folder="PACS"),
        "OfficeHome": Benchmark(("A", "C", "P", "R"), 65, folder="office_home"),
        "TerraIncognita": Benchmark(("L100", "L38", "L43", "L46"), 10, folder="terra_incognita"),
        "DomainNet": Benchmark(("clip", "info", "paint", "quick", "real", "sketch"), 345, 1000, "domain_net"),
        "SVIRO": Benchmark(
            ("aclass", "escape", "hilux", "i3", "lexus", "tesla", "tiguan", "tucson", "x5", "zoe"), 7, folder="sviro"
        ),
        **{
            f"Spawrious{size}_{level}": _spawrious(size.lower(), level)
            for size in ("O2O", "M2M")
            for level in ("easy", "medium", "hard")
        },
    }
)
"""By the names that DomainBed and its records use."""
