"""A checkout of DomainBed: ``python -m benchmarks.checkout PATH OPTION…`` runs its ``domainbed.scripts.train``."""

import runpy
import sys
from pathlib import Path
from unittest.mock import MagicMock

# DomainBed imports packages of data sets that are not read here.
_UNUSED = ("wilds", "wilds.datasets", "wilds.datasets.camelyon17_dataset", "wilds.datasets.fmow_dataset")


def use(checkout: Path) -> None:
    """Make the package ``domainbed`` of a checkout importable."""
    sys.path.insert(0, str(checkout))
    for name in _UNUSED:
        sys.modules.setdefault(name, MagicMock())


if __name__ == "__main__":
    use(Path(sys.argv.pop(1)))
    runpy.run_module("domainbed.scripts.train", run_name="__main__")
