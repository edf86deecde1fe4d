"""Match gradient variances across training domains: statistics, penalties, training, diagnostics.

Names load on first use, so that importing the package, and asking the command line for help, costs nothing.
What there is, and from where, stands in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
