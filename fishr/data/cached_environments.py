"""Environments whose inputs are features that a network computed once."""

from pathlib import Path

from attrs import frozen

from fishr.data.cached import CachedFeatures
from fishr.data.domains import Environments


@frozen
class FeatureEnvironments:
    """The domains of a file of features as a benchmark's environments, in the file's order.

    ``fishr sweep features`` writes such a file, with the environments of a benchmark in its order.

    Args:
        path: the file; a relative path starts at ``data_dir``, or at the folder ``data`` where none is given.
        key: the key the file must have; None: any.

    Raises:
        InputError: when called, a file that is absent, damaged or of another key.

    Example:
        >>> FeatureEnvironments("nowhere.h5")(seed=0, data_dir=None)
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: data/nowhere.h5: no such file; give the path of a file that fishr wrote
    """

    path: str
    key: str | None = None

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Read the file; there is nothing to draw, so ``seed`` is not used."""
        domains = CachedFeatures(self.path, self.key)(seed, data_dir)
        return Environments((*domains.training, *domains.evaluation), domains.classes)
