"""Published methods: one file each, with mathematics, hyper-parameters and experiment."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
