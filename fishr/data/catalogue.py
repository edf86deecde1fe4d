"""Which data sets there are, and which are ready to be used."""

from pathlib import Path

from attrs import frozen

from fishr.data.mnist import mnist_files
from fishr.errors import InputError


@frozen
class Entry:
    """One kind of data set.

    Args:
        kind: its class, as ``data.kind`` names it in a configuration.
        description: what it is.
        needs: which files, from where.
        ready: whether a run would find them.

    Example:
        >>> Entry("ColoredDigits", "digits", "nothing", ready=True).ready
        True
    """

    kind: str
    description: str
    needs: str
    ready: bool


def catalogue(data_dir: Path) -> tuple[Entry, ...]:
    """The data sets, with whether their files lie in a folder.

    Args:
        data_dir: where files are looked for.

    Example:
        >>> [entry.kind for entry in catalogue(Path("no-such-folder")) if entry.ready]
        ['ColoredDigits', 'Arrays', 'CachedFeatures']
    """
    return (
        Entry("ColoredDigits", "scikit-learn's 8×8 digits whose colours lie", "nothing, it is embedded", True),
        Entry(
            "ColoredMNIST",
            "MNIST by the IRM paper's protocol",
            f"MNIST/raw in {data_dir}: fishr data download mnist --data-dir {data_dir}",
            _has_mnist(data_dir),
        ),
        Entry("Arrays", "your own domains", "one .npz a domain, with inputs and labels", True),
        Entry("CachedFeatures", "features of a frozen network", "a file of fishr cache features", True),
    )


def _has_mnist(data_dir: Path) -> bool:
    try:
        mnist_files(data_dir)
    except InputError:
        return False
    return True
