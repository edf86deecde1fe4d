from .arrays import Arrays, from_arrays
from .available import Entry, catalog, catalogue
from .batches import FullBatch, Minibatch
from .cached_features import CachedFeatures
from .digits import ColoredDigits
from .domains import Domain, Domains, Environments
from .held_out import AllEnvironments, HeldOut
from .mnist import ColoredMNIST, DomainBedColoredMNIST, RotatedMNIST
from .mnist_files import download_mnist

__all__ = [
    "AllEnvironments",
    "Arrays",
    "CachedFeatures",
    "ColoredDigits",
    "ColoredMNIST",
    "Domain",
    "DomainBedColoredMNIST",
    "Domains",
    "Entry",
    "Environments",
    "FullBatch",
    "HeldOut",
    "Minibatch",
    "RotatedMNIST",
    "catalog",
    "catalogue",
    "download_mnist",
    "from_arrays",
]
