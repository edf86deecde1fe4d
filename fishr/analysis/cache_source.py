"""An experiment whose features or activations are cached: its data, its modules with weights, and its provenance."""

from pathlib import Path
from typing import Any

import attrs
import torch
from attrs import frozen

import fishr
from fishr.configuration import dumps, unstructure
from fishr.configuration.toml import parse_toml, toml_text
from fishr.data.caches.domain_rows import Section
from fishr.data.domains import Domain, Domains, Split
from fishr.errors import InputError
from fishr.models.weight_files import weights_digest
from fishr.training.checkpoints import load
from fishr.training.compute import resolve_device
from fishr.training.experiment import Experiment
from fishr.training.model import Model, build_model, place
from fishr.training.run_folder import CONFIGURATION, checkpoint_of
from fishr.training.state import TrainingState, first_state, state_to


@frozen(eq=False)
class CacheSource:
    """Domains of an experiment's data, and its modules with a run's last weights or with the first ones."""

    experiment: Experiment
    data: Domains
    model: Model
    state: TrainingState
    chosen: dict[str, tuple[Domain, Split]]  # the domains to cache, with labeled samples
    provenance: dict[str, Any]  # everything that decides the features, but for the type that they are stored in

    @property
    def sections(self) -> tuple[Section, ...]:
        return tuple(
            Section(name, split, len(domain.labels), domain.environment)
            for name, (domain, split) in self.chosen.items()
        )

    @property
    def class_names(self) -> dict[str, tuple[str, ...]]:
        """The entry of a file that names the classes; empty where they have no names."""
        return {} if self.data.class_names is None else {"class_names": self.data.class_names}

    def part(self, index: int, start: int, stop: int) -> Domain:
        """Return samples of a domain that is cached."""
        whole, _ = tuple(self.chosen.values())[index]
        return whole.part(range(len(whole.labels))[start:stop])


def cache_source(
    experiment: Experiment, folder: Path | None, data_dir: Path | None, device: str, domains: tuple[str, ...]
) -> CacheSource:
    """Return the source of a run's last weights, or of the first ones; of some domains or all."""
    where = resolve_device(device)
    data = experiment.data(experiment.seed, data_dir).to(where)
    model, table, text = build_model(experiment, data), unstructure(experiment), dumps(experiment)
    if folder is None:
        state = first_state(experiment, model, len(data.training))
    else:
        written = (folder / CONFIGURATION).read_bytes().decode()
        checkpoint = load(checkpoint_of(folder), experiment_text=written)
        state = state_to(attrs.evolve(checkpoint.evaluated, penalty=None), where)
        place(model, state.parameters, state.buffers)
        # The run's own text, comments included, unless its settings were changed.
        text = written if parse_toml(written) == table else text
    if data.label_columns is not None:
        raise InputError("cache: got labels in floating point, expected classes; analyze the run itself")
    chosen: dict[str, tuple[Domain, Split]] = {
        domain.name: (domain.labeled(experiment.loss), split) for domain, split in data.by_split
    }
    for name in domains:
        if name not in chosen:
            raise InputError(f"--domain: got {name!r}, expected one of {', '.join(map(repr, chosen))}")
    chosen = {name: part for name, part in chosen.items() if not domains or name in domains}
    provenance = {
        "data": toml_text(table["data"]),
        "seed": experiment.seed,
        "featurizer": toml_text({"featurizer": table["featurizer"], "precision": experiment.compute.precision}),
        "transform": "none",
        "weights_sha256": weights_digest(model.featurizer),
        "head_sha256": weights_digest(model.head, "head"),
        "step": state.step,
        "mode": "eval",
        "dtype": "float32",
        "domains": tuple(chosen),
        "experiment": text,
        "library": fishr.__version__,
        "torch": str(torch.__version__),
        "device": str(where),
    }
    return CacheSource(experiment, data, model, state, chosen, provenance)
