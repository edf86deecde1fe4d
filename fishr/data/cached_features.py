"""Domains of features, or of a layer's outputs, that a network computed once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from attrs import Factory, frozen

from fishr.data.activation_inputs import ActivationInputs
from fishr.data.domains import Domain, Domains
from fishr.data.environments import DataSetEnvironments, Environments
from fishr.errors import InputError
from fishr.paths import in_data_folder

if TYPE_CHECKING:
    from fishr.data.caches import ActivationCache, FeatureCache


@frozen
class CachedFeatures:
    """Domains from a file of ``fishr cache features``; each input is a row of features [F], float32.

    With ``MLP(widths=())``, a featurizer that only flattens, a head is trained on them without its network. Of a file
    of ``fishr cache features --at LAYER`` each input is the layer's output, read when a batch needs it; the featurizer
    is then ``LayersAbove``.

    Args:
        path: The file; relative to ``data_dir``, or to the folder "data" if that is None.
        key: Expected key of the file, a hash of everything that decides its features; None: any.
        expected: Expected entries of the file's provenance, as texts, such as ``weights_sha256``; they name what
            differs in a file of another key.
        training: Names of the domains to train on, in this order, while all others evaluate; empty: as in the file.
        at: Layer whose outputs the file has; None: features.

    Raises:
        InputError: When called: the file is absent, damaged, of another key or layer, or lacks a domain.

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
    at: str | None = None

    def __attrs_post_init__(self) -> None:
        for name in self.training:
            if self.training.count(name) > 1:
                raise InputError(f"training: got {name!r} twice, expected each domain once")

    def __call__(self, seed: int, data_dir: Path | None) -> Domains:
        """Read the file; nothing is random, so ``seed`` is not used."""
        # HDF5 takes long to load, and most experiments do without.
        from fishr.data.caches.provenance import check_fit

        path = in_data_folder(self.path, data_dir)
        remedy = "put back the file that belongs to the run, or train anew on this one"
        cache = _opened(path, self.at, remedy)
        found = provenance_texts(cache.provenance)
        check_fit(path, {name: found.get(name) for name in self.expected}, self.expected, remedy=remedy)
        if self.key not in (None, cache.key):
            raise InputError(f"{path}: has the key {cache.key[:12]}…, expected {str(self.key)[:12]}…; {remedy}")
        names = [section.name for section in cache.sections]
        for name in self.training:
            if name not in names:
                raise InputError(f"{path}: has no domain {name!r}, expected one of {', '.join(map(repr, names))}")
        training = self.training or tuple(section.name for section in cache.sections if section.split == "training")
        domains = {domain.name: domain for domain in _domains(cache)}
        return Domains(
            training=tuple(domains[name] for name in training),
            evaluation=tuple(domain for name, domain in domains.items() if name not in training),
            classes=cache.classes,
            class_names=cache.class_names,
        )


def _opened(path: Path, at: str | None, remedy: str) -> "FeatureCache | ActivationCache":
    from fishr.data.caches import open_activations, open_features

    if at is None:
        return open_features(path)
    cache = open_activations(path)
    # The file has the full name of the layer.
    if not f".{cache.at}".endswith(f".{at.removeprefix('featurizer.')}"):
        raise InputError(f"{path}: holds the outputs of {cache.at!r}, expected those of {at!r}; {remedy}")
    return cache


def _domains(cache: "FeatureCache | ActivationCache") -> Iterator[Domain]:
    from fishr.data.caches import FeatureCache

    for index, section in enumerate(cache.sections):
        if isinstance(cache, FeatureCache):
            rows = cache.domain(index)
            inputs, labels = torch.from_numpy(rows["features"]), rows["labels"]
        else:
            inputs = ActivationInputs(cache.rows(index), cache.shape, range(section.rows), cache.below_sha256)
            labels = cache.labels(index)
        labels = torch.from_numpy(labels.astype(np.int64, copy=False))
        yield Domain(section.name, inputs, labels, section.environment)


@frozen
class FeatureEnvironments:
    """The domains of a file of ``fishr sweep features`` as a benchmark's environments, in the file's order.

    Args:
        path: The file; relative to ``data_dir``, or to the folder "data" if that is None.
        key: Expected key of the file; None: any.
        at: Layer whose outputs the file has; None: features.

    Raises:
        InputError: When called: the file is absent, damaged, or of another key or layer.
    """

    path: str
    key: str | None = None
    at: str | None = None

    def __call__(self, seed: int, data_dir: Path | None) -> Environments:
        """Read the file; nothing is random, so ``seed`` is not used."""
        path = in_data_folder(self.path, data_dir)
        if not path.is_file():
            raise InputError(f"{path}: no such file; write it with fishr sweep features PLAN -o {path}")
        return DataSetEnvironments(CachedFeatures(self.path, self.key, at=self.at))(seed, data_dir)


def provenance_texts(provenance: Mapping[str, object]) -> dict[str, str]:
    """Return a file's provenance as texts, which a configuration can hold; None is left out."""
    return {
        name: ", ".join(sorted(map(str, cast(tuple[object, ...], value)))) if isinstance(value, tuple) else str(value)
        for name, value in provenance.items()
        if value is not None
    }
