"""HDF5 caches of features, activations, gradients and images; docs/format.md describes the files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
