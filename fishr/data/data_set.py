"""The protocols of data: what builds the domains of a run, and what builds the environments of a benchmark."""

from pathlib import Path
from typing import Protocol

from fishr.data.domains import Domains, Environments


class DataSet(Protocol):
    """Data of an experiment: frozen settings, or a plain function, whose call builds the domains.

    Example:
        >>> import torch
        >>> from fishr.data import Domain
        >>> def noise(seed, data_dir):
        ...     draw = torch.Generator().manual_seed(seed)
        ...     parts = [Domain(name, torch.randn(8, 3, generator=draw), torch.arange(8) % 2) for name in "ab"]
        ...     return Domains((parts[0],), (parts[1],), classes=2)
        >>> own: DataSet = noise
        >>> own(0, None).shape
        (3,)
    """

    def __call__(self, seed: int, data_dir: Path | None, /) -> Domains:
        """Build the domains.

        Args:
            seed: The experiment's seed, the only source of randomness.
            data_dir: Folder with data files; None: ``data``.
        """
        ...


class EnvironmentSource(Protocol):
    """Source of all environments of a benchmark, of which ``HeldOut`` keeps some for testing.

    Example:
        >>> from fishr.data import RotatedMNIST
        >>> own: EnvironmentSource = RotatedMNIST(samples=5)
    """

    def __call__(self, seed: int, data_dir: Path | None, /) -> Environments:
        """Build the environments; arguments as for ``DataSet``."""
        ...
