"""Match gradient variances across training domains: statistics, penalties, training, diagnostics.

Names load on first use, so that importing the package, and asking the command line for help, costs nothing.
``__init__.pyi`` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
