"""Domains: embedded digits, MNIST, one's own arrays, cached features; and the batches a step sees."""

from fishr.data.arrays import Arrays, from_arrays
from fishr.data.batches import FullBatch, Minibatch
from fishr.data.cached import CachedFeatures
from fishr.data.catalogue import Entry, catalogue
from fishr.data.digits import ColoredDigits
from fishr.data.domains import Domain, Domains
from fishr.data.download import download_mnist
from fishr.data.mnist import ColoredMNIST

__all__ = [
    "Arrays",
    "CachedFeatures",
    "ColoredDigits",
    "ColoredMNIST",
    "Domain",
    "Domains",
    "Entry",
    "FullBatch",
    "Minibatch",
    "catalogue",
    "download_mnist",
    "from_arrays",
]
