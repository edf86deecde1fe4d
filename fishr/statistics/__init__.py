"""Per-domain statistics of the head's per-sample gradients, and distances between domains.

Names load on first use; ``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
