"""Risk, gradient, Fisher and Hessian quantities of each domain and of pairs of domains.

Each is a function of (head, features, labels, sizes, loss) and options by keyword, and has ``of``, which reads an
``Observation`` or the ``Curvature`` on one instead, so that several share intermediates. A whole network is a head on
the raw inputs. Their files are in ``quantities``; ``docs/diagnostics.md`` lists them.

Example:
    >>> import torch
    >>> from fishr.diagnostics import gradient_cosines
    >>> head, data = torch.nn.Linear(3, 2), (torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1]), (2, 3))
    >>> gradient_cosines(head, *data).value.shape
    torch.Size([2, 2])
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import lazy_loader

_exported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """Return what the stub exports, ``NAMES`` of all that ``measure`` returns, or any other registered diagnostic."""
    if name in __all__ or name.startswith("_"):
        return _exported(name)
    if find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    from fishr.diagnostics.registry import diagnostics

    if name == "NAMES":
        return tuple(diagnostics("head"))
    if name == "Inspection":  # its name until 0.2
        return _exported("Curvature").of
    if (entry := diagnostics().get(name)) is not None:
        return entry.function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
