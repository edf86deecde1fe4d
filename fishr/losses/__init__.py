"""Per-sample losses with their derivative by the logits in closed form.

Gradient statistics are of each sample's unscaled loss, so a loss here never averages over samples.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
