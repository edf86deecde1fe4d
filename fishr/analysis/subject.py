"""Opening what is looked at: a run folder, or a cache of features or gradients."""

from pathlib import Path

import attrs
import torch

from fishr.analysis.cached_subject import from_cache
from fishr.analysis.records import Network, Snapshot, Split, Subject
from fishr.analysis.selection import Names, chosen
from fishr.configuration import load as load_configuration
from fishr.data.domains import Domain
from fishr.errors import InputError
from fishr.files import digest_of
from fishr.training.checkpoint_path import checkpoint_of
from fishr.training.checkpoints import check_experiment, load
from fishr.training.experiment import Experiment
from fishr.training.features import domain_features
from fishr.training.folders import CONFIGURATION
from fishr.training.keeping import kept_checkpoints
from fishr.training.loop import domains_to, resolve_device
from fishr.training.model import place
from fishr.training.state import build_model, first_state, state_to, without_optimizer

__all__ = ["Network", "Snapshot", "Subject", "open_subject"]


def open_subject(
    path: Path,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    domains: Names = "all",
    plugins: tuple[str, ...] = (),
) -> Subject:
    """The head, features and domains of a run folder's last checkpoint, or of a cache file.

    A run brings its network and its kept checkpoints; a cache needs neither the data nor any plugin.

    Args:
        path: a run folder, or a file that ``fishr cache features`` or ``fishr cache gradients`` wrote.
        data_dir: where data files lie, for a run whose data has files.
        device: "cpu", "cuda" or "auto".
        domains: "all", or the names of those to look at.
        plugins: modules whose penalties the run's configuration may name.

    Returns:
        The subject, its features float32 or wider on the device.

    Raises:
        InputError: nothing is there, it is neither run nor cache, it has no checkpoint yet, or a domain is not in it.

    Example:
        >>> import tempfile, attrs
        >>> from fishr.configuration import dumps
        >>> from fishr.protocols import colored_digits
        >>> from fishr.training import run
        >>> experiment = attrs.evolve(colored_digits(), steps=1)
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     events = list(run(experiment, Path(parent, "mine"), experiment_text=dumps(experiment)))
        ...     subject = open_subject(Path(parent, "mine"), domains=("gray", "flip 0.1"))
        >>> subject.name, [domain.name for domain in subject.domains], subject.splits
        ('mine', ['flip 0.1', 'gray'], ('training', 'evaluation'))
        >>> subject.domains[0].inputs.shape, subject.source["step"]
        (torch.Size([3250, 390]), '1')
    """
    where = resolve_device(device)
    if (path / CONFIGURATION).is_file():
        return _from_run(path, data_dir, where, domains, plugins)
    if path.is_dir():
        raise InputError(f"{path}: not a run folder, it has no {CONFIGURATION}; give the folder that train made")
    if not path.exists():
        raise InputError(f"{path}: no such run or file; give a run folder or a cache that fishr wrote")
    return from_cache(path, where, domains)


def _from_run(
    folder: Path, data_dir: Path | None, device: torch.device, wanted: Names, plugins: tuple[str, ...]
) -> Subject:
    experiment = load_configuration(folder / CONFIGURATION, Experiment, (), plugins)
    path = checkpoint_of(folder)
    data = domains_to(experiment.data(experiment.seed, data_dir), device)
    everything = (*data.training, *data.evaluation)
    indices = chosen([domain.name for domain in everything], wanted, folder)
    splits: list[Split] = ["training" if index < len(data.training) else "evaluation" for index in indices]

    model = build_model(experiment, data)
    checkpoint = load(path, without_optimizer(first_state(experiment, model, len(data.training))))
    text = (folder / CONFIGURATION).read_bytes().decode()
    check_experiment(path, checkpoint, text)
    state = state_to(checkpoint.state, device)
    place(model, state.parameters, state.buffers)
    model.both().eval()
    inputs = tuple(everything[index].inputs for index in indices)
    domains = list[Domain]()
    for index in indices:
        chunks = domain_features(model, experiment, state, everything[index])
        features = torch.cat([features for features, _ in chunks])
        domains.append(attrs.evolve(everything[index], inputs=features))
    return Subject(
        name=folder.resolve().name,
        head=model.head,
        loss=experiment.loss,
        domains=tuple(domains),
        splits=tuple(splits),
        network=Network(model.featurizer, inputs),
        trajectory=_trajectory(folder, text, device),
        source={
            "path": str(folder),
            "kind": "run",
            "key": digest_of(path),
            "step": str(state.step),
        },
    )


def _trajectory(folder: Path, text: str, device: torch.device) -> tuple[Snapshot, ...]:
    found = list[Snapshot]()
    for path in kept_checkpoints(folder):
        kept = load(path)
        check_experiment(path, kept, text)
        state = kept.state
        found.append(Snapshot(state.step, {name: p.to(device) for name, p in state.parameters.items()}))
    return tuple(found)
