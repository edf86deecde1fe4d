"""Averages of weights: over a run, evaluated in place of its last weights; and of several models."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
