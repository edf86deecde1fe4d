from .arrays import Arrays, from_arrays
from .batches import Batches, FullBatch, FunctionBatches, Minibatch
from .cached_features import CachedFeatures, FeatureEnvironments
from .data_catalog import Entry, catalog, catalogue
from .digits import ColoredDigits
from .domains import DataSet, Domain, Domains
from .environments import AllEnvironments, DataSetEnvironments, Environments, EnvironmentSource, HeldOut
from .images.huggingface_images import HuggingFaceImages
from .images.image_data import ImageFolders, ImageList
from .mnist import ColoredMNIST, DomainBedColoredMNIST, RotatedMNIST
from .mnist_files import download_mnist
from .numpy_data import NumPyData
from .published_splits import PublishedSplits

__all__ = [
    "AllEnvironments",
    "Arrays",
    "Batches",
    "CachedFeatures",
    "ColoredDigits",
    "ColoredMNIST",
    "DataSet",
    "DataSetEnvironments",
    "Domain",
    "DomainBedColoredMNIST",
    "Domains",
    "Entry",
    "EnvironmentSource",
    "Environments",
    "FeatureEnvironments",
    "FullBatch",
    "FunctionBatches",
    "HeldOut",
    "HuggingFaceImages",
    "ImageFolders",
    "ImageList",
    "Minibatch",
    "NumPyData",
    "PublishedSplits",
    "RotatedMNIST",
    "catalog",
    "catalogue",
    "download_mnist",
    "from_arrays",
]
