"""Open a run folder, or a cache of features or gradients, as a subject."""

from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch

from fishr.analysis.cached_heads import head_of
from fishr.analysis.subject import Network, Snapshot, Subject
from fishr.configuration import load as load_configuration
from fishr.data.caches import FeatureCache, GradientCache, open_features, open_gradients
from fishr.data.caches.domain_rows import Section
from fishr.data.caches.hdf5 import read_header
from fishr.data.domains import Domain
from fishr.errors import InputError
from fishr.files import digest_of
from fishr.training.artifacts import snapshots
from fishr.training.checkpoints import load
from fishr.training.compute import resolve_device
from fishr.training.evaluation import open_run
from fishr.training.experiment import Experiment
from fishr.training.frozen_features import domain_features
from fishr.training.model import place
from fishr.training.run_folder import CONFIGURATION, checkpoint_of
from fishr.training.state import state_to

Names = Literal["all"] | tuple[str, ...]


def open_subject(
    path: Path,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    domains: Names = "all",
    plugins: tuple[str, ...] = (),
) -> Subject:
    """Return the head, features and domains of a run folder's last checkpoint, or of a cache file.

    Features are float32 or wider, on the device. A run has its network and its kept checkpoints as well; a cache does
    not need the data.

    Args:
        path: a run folder, or a file that ``fishr cache features`` or ``fishr cache gradients`` wrote.
        data_dir: folder of the data files, for a run whose data has files.
        device: as for ``resolve_device``.
        domains: "all", or the names of some.
        plugins: modules that the configuration of the run, or the head and the loss of the cache, may name.

    Raises:
        InputError: nothing is there, it is neither run nor cache, it has no checkpoint yet, it is damaged, or a domain
            is not in it.
    """
    where = resolve_device(device)
    if (path / CONFIGURATION).is_file():
        return _from_run(path, data_dir, where, domains, plugins)
    if path.is_dir():
        raise InputError(f"{path}: not a run folder, it has no {CONFIGURATION}; give the folder that train made")
    if not path.exists():
        raise InputError(f"{path}: no such run or file; give a run folder or a cache that fishr wrote")
    return from_cache(path, where, domains, plugins)


def _from_run(
    folder: Path, data_dir: Path | None, device: torch.device, wanted: Names, plugins: tuple[str, ...]
) -> Subject:
    experiment = load_configuration(folder / CONFIGURATION, Experiment, (), plugins)
    model, state, data = open_run(experiment, folder, data_dir, device)
    names = [domain.name for domain, _ in data.by_split]
    indices = _chosen(names, wanted, folder)
    chosen, splits = zip(*(data.by_split[index] for index in indices), strict=True)
    chosen = [domain.labeled(experiment.loss) for domain in chosen]
    place(model, state.parameters, state.buffers)
    model.both().eval()
    features = [torch.cat([rows for rows, _ in domain_features(model, experiment, state, domain)]) for domain in chosen]
    text = (folder / CONFIGURATION).read_bytes().decode()
    kept = (state_to(load(path, experiment_text=text).evaluated, device) for path in snapshots(folder))
    return Subject.from_domains(
        name=folder.resolve().name,
        head=model.head,
        loss=experiment.loss,
        domains=[attrs.evolve(domain, inputs=own) for domain, own in zip(chosen, features, strict=True)],
        splits=splits,
        network=Network(model.featurizer, tuple(domain.inputs for domain in chosen)),
        trajectory=tuple(Snapshot(state.step, state.parameters) for state in kept),
        source={"path": str(folder), "kind": "run", "key": digest_of(checkpoint_of(folder)), "step": str(state.step)},
        every=tuple(domain.title for domain, _ in data.by_split),
    )


def from_cache(path: Path, device: torch.device, wanted: Names, plugins: tuple[str, ...] = ()) -> Subject:
    """Return the head and the features of a cache, which has neither network nor trajectory."""
    cache = _opened(path)
    indices = _chosen([section.name for section in cache.sections], wanted, path)
    chosen = [(index, cache.sections[index]) for index in indices]
    head, loss = head_of(cache, plugins)
    return Subject.from_domains(
        name=path.stem,
        head=head.to(device),
        loss=loss,
        domains=[_domain(section, cache.domain(index), device) for index, section in chosen],
        splits=tuple(section.split for _, section in chosen),
        source={
            "path": str(path),
            "kind": "features" if isinstance(cache, FeatureCache) else "gradients",
            "key": cache.key,
            "step": str(cache.provenance.get("step", "unknown")),
        },
        every=tuple(section.title for section in cache.sections),
    )


def _opened(path: Path) -> FeatureCache | GradientCache:
    kind = read_header(path).kind
    if kind == "fishr-features":
        return open_features(path)
    if kind != "fishr-gradients":
        raise InputError(f"{path}: got a file of kind {kind}, expected a run or a cache of features or gradients")
    cache = open_gradients(path)
    if cache.form != "factors":
        raise InputError(
            f"{path}: got gradients as {cache.form}, without the features they are of, expected factors; "
            "analyze the run or its cache of features"
        )
    return cache


def _domain(section: Section, rows: dict[str, Any], device: torch.device) -> Domain:
    features, labels = (torch.from_numpy(np.require(rows[key], None, ["C", "W"])) for key in ("features", "labels"))
    return Domain(section.name, features.float().to(device), labels.to(device), section.environment)


def _chosen(names: list[str], wanted: Names, path: Path) -> list[int]:
    """Return the indices of the wanted domains, ascending."""
    if wanted == "all":
        return list(range(len(names)))
    for name in wanted:
        if name not in names:
            raise InputError(f"{path}: got domain {name!r}, expected some of: {', '.join(names)}")
    if not wanted:
        raise InputError(f"{path}: got no domain, expected some of: {', '.join(names)}")
    return [index for index, name in enumerate(names) if name in wanted]
