"""Data sets of image files: read when a batch needs them, augmented by a seed of each image, cached on request."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
