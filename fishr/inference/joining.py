"""A run on cached outputs and the layers that computed them, as one network in a folder that is used like a run's."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from attrs import evolve
from torch import Tensor

from fishr.configuration import dumps, structure
from fishr.configuration.toml import parse_toml
from fishr.data.cached_features import CachedFeatures, FeatureEnvironments
from fishr.data.environments import AllEnvironments, DataSetEnvironments, HeldOut
from fishr.errors import InputError
from fishr.files import digest_of, json_text, write_atomically
from fishr.inference.prediction_files import check_new
from fishr.inference.trained_model import SavedRun, read_run
from fishr.models.featurizers import Featurizer
from fishr.models.weight_files import load_weights, weights_digest
from fishr.paths import in_data_folder
from fishr.training.checkpoints import save
from fishr.training.experiment import Experiment
from fishr.training.frozen_features import Frozen
from fishr.training.layers_above import LayersAbove
from fishr.training.model import Model, build_model, build_modules
from fishr.training.run_folder import CHECKPOINT, JOINED, checkpoint_of, new_folder
from fishr.training.signature import Signature
from fishr.training.state import without_optimizer

if TYPE_CHECKING:
    from fishr.data.caches import ActivationCache, FeatureCache


def join_layers(
    run: Path,
    out: Path,
    below: Path | None = None,
    data_dir: Path | None = None,
    plugins: Iterable[str] = (),
    progress: Callable[[str], object] = lambda part: None,
) -> Signature:
    """Write a run on cached outputs as the whole network, on the data that the outputs were computed from.

    The folder is used like that of a run through ``Frozen(inner, at=LAYER)`` with the same weights: it has config.toml,
    checkpoint.pt, and joined.json with the SHA-256 of the run's checkpoint and of the weights below. No run resumes
    from it.

    Args:
        run: A run on a file of ``fishr cache features`` or ``fishr sweep features``, which must still be there.
        out: The folder to write.
        below: Run folder whose weights computed the outputs; None: those that the file's network has at first, such as
            published ones.
        data_dir: Folder of the file and of the data, which are opened for the shape of an input and the classes.
        plugins: Modules that the configurations name.
        progress: Called with the name of each of four parts of the work at its beginning.

    Returns:
        Inputs and classes of the network.

    Raises:
        InputError: A run on other data, an absent or another file, weights below that are not those of the file, or a
            folder that exists.

    Example:
        >>> join_layers(Path("runs/head"), Path("runs/whole"))
        Traceback (most recent call last):
            ...
        fishr.errors.InputError: runs/head: not a run folder, it has no config.toml; give the folder that train made
    """
    check_new(out)
    named = tuple(plugins)
    progress("run")
    saved = read_run(run, named)
    cache, at = _cache(saved.experiment, data_dir, run)
    text = cache.provenance.get("experiment")
    if not isinstance(text, str):
        raise InputError(f"{cache.path}: does not name the experiment of its network; make it anew")
    source = structure(parse_toml(text), Experiment, named)
    progress("network below")
    network = _network(source, cache, below, data_dir, named)
    experiment = _whole(saved.experiment, source, at)
    progress("data")
    signature = Signature.of(experiment.data(experiment.seed, data_dir))
    plain = evolve(experiment, compute=evolve(experiment.compute, compile=False))
    model = build_modules(plain, signature.shape, signature.outputs(experiment.loss), torch.device("cpu"))
    progress("whole network")
    given = {name: _value(name, saved, network) for name in (*model.parameters(), *model.buffers())}
    if beyond := sorted(saved.weights.keys() - given.keys()):
        raise InputError(
            f"{run}: has weights of {beyond[0]}, expected those of a head or of the layers above the cached one; join "
            "a run without layers of its own"
        )
    parameters, buffers = ({name: given[name] for name in part} for part in (model.parameters(), model.buffers()))
    state = evolve(without_optimizer(saved.state), parameters=parameters, buffers=buffers)
    written, digest = dumps(experiment), weights_digest(network.featurizer)
    origin = {"run": str(run), "sha256": digest_of(checkpoint_of(run)), "weights_sha256": digest}

    def fill(folder: Path) -> None:
        save(folder / CHECKPOINT, state, written, signature=signature)
        write_atomically(folder / JOINED, f"{json_text(origin, indent=2)}\n".encode())

    with new_folder(out, written, fill):
        pass
    return signature


def _cache(
    experiment: Experiment, data_dir: Path | None, run: Path
) -> "tuple[FeatureCache | ActivationCache, str | None]":
    """Return the file of a run's inputs, and the layer whose outputs it has."""
    data = experiment.data
    found = data.source if isinstance(data, HeldOut) else data
    if not isinstance(found, CachedFeatures | FeatureEnvironments):
        raise InputError(f"{run}: got a run on {type(found).__name__}, expected one on cached features or activations")
    # HDF5 takes long to load.
    from fishr.data.caches import open_activations, open_features

    path = in_data_folder(found.path, data_dir)
    cache = open_features(path) if found.at is None else open_activations(path)
    if found.key not in (None, cache.key):
        raise InputError(f"{path}: has the key {cache.key[:12]}…, expected {str(found.key)[:12]}…; put back the run's")
    return cache, found.at


def _network(
    source: Experiment,
    cache: "FeatureCache | ActivationCache",
    below: Path | None,
    data_dir: Path | None,
    plugins: tuple[str, ...],
) -> Model:
    """Return the network that computed a file's rows."""
    model = build_model(source, source.data(source.seed, data_dir))
    if below is not None:
        prefix = "featurizer."
        given = {n.removeprefix(prefix): p for n, p in read_run(below, plugins).weights.items() if n.startswith(prefix)}
        load_weights(model.featurizer, given, str(below), f"give the run that {cache.path} was made of")
    if weights_digest(model.featurizer) != cache.provenance.get("weights_sha256"):
        got = "the first weights of its network" if below is None else f"the weights of {below}"
        raise InputError(
            f"{cache.path}: was computed with other weights than {got}; give the run that it was made of by --below"
        )
    return model


def _whole(experiment: Experiment, source: Experiment, at: str | None) -> Experiment:
    """Return the experiment on the data and the network that its inputs were computed from."""
    data: Any = source.data
    if isinstance(experiment.data, HeldOut):
        environments = data.source if isinstance(data, AllEnvironments) else DataSetEnvironments(data)
        data = evolve(experiment.data, source=environments)
    featurizer = _replaced(experiment.featurizer, Frozen(source.featurizer, at=at))
    return evolve(experiment, data=data, featurizer=featurizer, average=None)


def _replaced(featurizer: Featurizer, frozen: Frozen) -> Featurizer:
    """Return the featurizer of whole inputs, within what wraps it."""
    inner = None if isinstance(featurizer, LayersAbove) else getattr(featurizer, "inner", None)
    return frozen if inner is None else evolve(cast(Any, featurizer), inner=_replaced(inner, frozen))


def _value(name: str, saved: SavedRun, network: Model) -> Tensor:
    """Return the run's weights of a name, else those of the network, both of whose parts have its names."""
    below, layer = network.featurizer.state_dict(), name.partition(".inner.")[2]
    found = saved.weights.get(name, below.get(layer))
    if found is None:
        raise InputError(
            f"{saved.run}: has no weights for {name} of the whole network; join a run whose featurizer ends at the "
            "cached outputs"
        )
    return found.detach()
