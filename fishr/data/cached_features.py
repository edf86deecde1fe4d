"""Domains whose inputs are features that a network computed once."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from attrs import Factory, frozen
from numpy.typing import NDArray

from fishr.data.domains import Domain, Domains
from fishr.data.environments import Environments
from fishr.errors import InputError
from fishr.paths import in_data_folder

if TYPE_CHECKING:
    from fishr.data.caches import FeatureCache


@frozen
class CachedFeatures:
    """Domains from a file that ``fishr cache features`` wrote; each input is a row of features [F], float32.

    With a featurizer that only flattens, ``MLP(widths=())``, a head is trained on them without its network.

    Args:
        path: the file; a relative path starts at ``data_dir``, or at the folder ``data`` where none is given.
        key: the key the file must have, which is a hash of everything that decides its features; None: any.
        expected: entries that the file's provenance must have, as texts, such as ``weights_sha256``; they say what a
            file of another key differs in.
        training: names of the domains to train on, in this order, while all others evaluate; none: as in the file.

    Raises:
        InputError: when called, a file that is absent, damaged or of another key, or a domain it does not hold.

    Example:
        >>> CachedFeatures("nowhere.h5", training=("photo",)).training
        ('photo',)
        >>> CachedFeatures("photo.h5", training=("photo", "photo"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: training: got 'photo' twice, expected each domain once
    """

    path: str
    key: str | None = None
    expected: dict[str, str] = Factory(dict[str, str])
    training: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Refuse a domain that is named twice."""
        for name in self.training:
            if self.training.count(name) > 1:
                raise InputError(f"training: got {name!r} twice, expected each domain once")

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Read the file; there is nothing to draw, so ``seed`` is not used."""
        # HDF5 takes long to load, and most experiments do without.
        from fishr.data.caches import open_features

        path = in_data_folder(self.path, data_dir)
        cache = open_features(path)
        self._check(path, cache)
        names = [section.name for section in cache.sections]
        for name in self.training:
            if name not in names:
                raise InputError(f"{path}: has no domain {name!r}, expected one of {', '.join(map(repr, names))}")
        chosen = self.training or tuple(section.name for section in cache.sections if section.split == "training")
        domains = {name: _domain(name, cache.domain(index)) for index, name in enumerate(names)}
        return Domains(
            training=tuple(domains[name] for name in chosen),
            evaluation=tuple(domain for name, domain in domains.items() if name not in chosen),
            # A single output tells two classes apart.
            classes=max(2, cache.head["outputs"]),
        )

    def _check(self, path: Path, cache: "FeatureCache") -> None:
        from fishr.data.caches import check_fit

        remedy = "put back the file that belongs to the run, or train anew on this one"
        told = provenance_texts(cache.provenance)
        check_fit(path, {name: told.get(name) for name in self.expected}, self.expected, remedy=remedy)
        if self.key not in (None, cache.key):
            raise InputError(f"{path}: has the key {cache.key[:12]}…, expected {str(self.key)[:12]}…; {remedy}")


def provenance_texts(provenance: Mapping[str, object]) -> dict[str, str]:
    """A file's provenance as texts, which a configuration can hold.

    Example:
        >>> provenance_texts({"seed": 3, "domains": ("photo", "art"), "transform": None})
        {'seed': '3', 'domains': 'art, photo'}
    """
    return {
        name: ", ".join(sorted(map(str, cast(tuple[object, ...], value)))) if isinstance(value, tuple) else str(value)
        for name, value in provenance.items()
        if value is not None
    }


def _domain(name: str, rows: "Mapping[str, NDArray[Any]]") -> Domain:
    def tensor(array: NDArray[Any], dtype: type) -> torch.Tensor:
        return torch.from_numpy(np.require(array, dtype, ["C", "W"]))

    return Domain(name, tensor(rows["features"], np.float32), tensor(rows["labels"], np.int64))


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
