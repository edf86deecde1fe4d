"""Methods that papers compare: one file each, with its mathematics, its hyper-parameters and its experiment."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
