"""Averages of weights over a run, which are evaluated, exported and analyzed in place of the last weights."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
