"""Penalties, their schedules and combinators: a frozen configuration that is the function, state passed explicitly."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
