"""A subject from a file of features or gradients: without the data, the network or anyone's plugins."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from fishr.analysis.feature_caching import head_of
from fishr.analysis.records import Split, Subject
from fishr.analysis.selection import Names, chosen
from fishr.data.caches import FeatureCache, GradientCache, open_features, open_gradients, read_header
from fishr.data.domains import Domain
from fishr.errors import InputError


def from_cache(path: Path, device: torch.device, wanted: Names) -> Subject:
    """The head and the features that a cache holds.

    Args:
        path: of a cache of features, or of one of gradients by their factors, which hold the features.
        device: of head and features.
        wanted: "all", or the names of domains.

    Returns:
        The subject; it has neither network nor trajectory.

    Raises:
        InputError: absent, damaged, of another kind, gradients without features, or a domain that is not in it.

    Example:
        >>> from_cache(Path("nowhere.h5"), torch.device("cpu"), "all")
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: nowhere.h5: no such file; give the path of a file that fishr wrote
    """
    cache = _opened(path)
    indices = chosen([section.name for section in cache.sections], wanted, path)
    head, loss = head_of(cast(FeatureCache, cache))
    splits: list[Split] = [
        "training" if cache.sections[index].split == "training" else "evaluation" for index in indices
    ]
    return Subject(
        name=path.stem,
        head=head.to(device),
        loss=loss,
        domains=tuple(_domain(cache.sections[index].name, cache.domain(index), device) for index in indices),
        splits=tuple(splits),
        source={
            "path": str(path),
            "kind": "features" if isinstance(cache, FeatureCache) else "gradients",
            "key": cache.key,
            "step": str(cache.provenance.get("step", "unknown")),
        },
    )


def _opened(path: Path) -> FeatureCache | GradientCache:
    kind = read_header(path).kind
    if kind == "fishr-features":
        return open_features(path)
    if kind != "fishr-gradients":
        raise InputError(
            f"{path}: got a file of kind {kind}, expected a run folder or a cache of features or gradients"
        )
    cache = open_gradients(path)
    if cache.form != "factors":
        raise InputError(
            f"{path}: got gradients as {cache.form}, without the features they are of, expected factors; "
            "analyse the run or its cache of features"
        )
    return cache


def _domain(name: str, rows: dict[str, Any], device: torch.device) -> Domain:
    features, labels = (
        torch.from_numpy(np.require(rows[column], None, ["C", "W"])) for column in ("features", "labels")
    )
    return Domain(name, features.float().to(device), labels.to(device))
