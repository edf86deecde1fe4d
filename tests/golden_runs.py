"""DomainBed's weights after four updates, and the problem that they belong to."""

import json
import re
import zlib
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.training.evaluation import averaged
from fishr.training.experiment import Experiment
from fishr.training.model import Model, build_modules, evaluating, place
from fishr.training.owned import Owned
from fishr.training.state import TrainingState, first_state
from fishr.training.step import advance
from fishr.types import DomainBatch

FOLDER = Path(__file__).parent / "goldens"
RUNS: dict[str, Any] = json.loads((FOLDER / "updates.json").read_text())
# The same on images of 4 x 4, which take a fifth of the time.
SMALL_RUNS: dict[str, Any] = json.loads((FOLDER / "small_updates.json").read_text())
HPARAMS: dict[str, Any] = json.loads((FOLDER / "hparams.json").read_text())
FLOAT64 = torch.float64
# The layers of ``MNISTCNN`` by DomainBed's names.
LAYERS = {"0": "conv1", "2": "bn0", "3": "conv2", "5": "bn1", "6": "conv3", "8": "bn2", "9": "conv4", "11": "bn3"}
# DomainBed's names of what a state owns, where they are not its keys.
ROLES = {
    "selfreg": "cdpl",
    "adversary": "adv_classifier",
    "style": "style",
    "label_classifier": "classifier_label_2",
    "domain_classifier": "classifier_domain",
}
# Names below a module that wraps another.
WRAPPED = {
    "featurizer.label.": "featurizer.",
    "featurizer.domain.": "featurizer_domain.",
    "featurizer.network.": "featurizer.",
    "featurizer.context.": "context_net.context_net.",
    "head.1.": "head.",
}


def upstream(name: str) -> str:
    """DomainBed's name of a parameter."""
    for ours, theirs in WRAPPED.items():
        name = name.replace(ours, theirs)
    role, *layer, kind = name.split(".")
    layers = LAYERS if role.startswith("featurizer") else {}
    return ".".join((role, *(layers.get(part, part) for part in layer), kind))


def role_of(name: str) -> str:
    """The role of a parameter by DomainBed's name."""
    return re.match(r"heads\.\d|\w+", name)[0]


def first_value(name: str, shape: tuple[int, ...]) -> Tensor:
    drawn = torch.rand(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())), dtype=FLOAT64)
    drawn = drawn * 2 - 1
    if len(shape) > 1:
        return drawn / torch.tensor(shape[1:]).prod().to(FLOAT64).sqrt()
    return 0.1 * drawn + name.endswith(".weight")


def batch_of(step: int, side: int) -> DomainBatch:
    inputs, labels = [], []
    for domain in range(3):
        draws = torch.Generator().manual_seed(1000 * step + domain)
        images = torch.rand(8, 2, side, side, generator=draws, dtype=FLOAT64) * (1 + domain)
        classes = torch.randint(3, (8,), generator=draws)
        images[:, 0] += classes.view(8, 1, 1)
        inputs.append(images)
        labels.append(classes)
    return DomainBatch(torch.cat(inputs), torch.cat(labels), (8, 8, 8))


def checksums(parameters: dict[str, Tensor]) -> dict[str, list[float]]:
    """[Σw, Σw², Σ w_i·cos i] of each role."""
    roles = dict[str, list[Tensor]]()
    for name in sorted(parameters, key=upstream):
        roles.setdefault(role_of(upstream(name)), []).append(parameters[name].flatten())
    return {role: checksum(torch.cat(parts)) for role, parts in roles.items()}


def checksum(flat: Tensor) -> list[float]:
    wave = torch.arange(len(flat), dtype=FLOAT64).cos()
    return [flat.sum().item(), flat.square().sum().item(), (flat * wave).sum().item()]


def owned_values(tree: Any, role: str = "") -> dict[str, Tensor]:
    """The parameters that risks and penalties train, by DomainBed's names: a key of a term's state is a role."""
    if isinstance(tree, Owned):
        # A module of several roles has them in the names of its parameters.
        prefix = "" if any(name.startswith("discriminator.") for name in tree.parameters) else f"{role}."
        return {re.sub(r"hidden(\d)", r"hiddens.\1", prefix + name): value for name, value in tree.parameters.items()}
    if not isinstance(tree, dict):
        return {}
    parts = (owned_values(part, ROLES.get(key, key if role else "discriminator")) for key, part in tree.items())
    return {name: value for part in parts for name, value in part.items()}


def with_first_values(tree: Any, role: str = "") -> Any:
    """A state of penalties with DomainBed's first values of the parameters that they train."""
    if isinstance(tree, Owned):
        # Transfer's second classifier begins as the first.
        named = {
            own: name.replace("adv_classifier", "head")
            for own, name in zip(tree.parameters, owned_values(tree, role), strict=True)
        }
        return evolve(
            tree, parameters={own: first_value(name, tuple(tree.parameters[own].shape)) for own, name in named.items()}
        )
    if not isinstance(tree, dict):
        return tree
    return {
        key: with_first_values(part, ROLES.get(key, key if role else "discriminator")) for key, part in tree.items()
    }


def owned_by(state: TrainingState) -> dict[str, Tensor]:
    return owned_values(state.penalty) | owned_values(state.descent)


def experiment_of(algorithm: str, hparams: dict[str, Any]) -> Experiment:
    settings = Settings(hparams=hparams | {"batch_size": 8})
    return Job("RotatedMNIST", algorithm, (0, 1, 2), 0, 0, settings).experiment()


def golden_model(experiment: Experiment, side: int) -> Model:
    model = build_modules(experiment, (2, side, side), 3, torch.device("cpu"))
    model.featurizer.double()
    model.head.double()
    with torch.no_grad():
        for name, parameter in model.parameters().items():
            parameter.copy_(first_value(upstream(name), tuple(parameter.shape)))
    return model


def sums_of(model: Model, experiment: Experiment, state: TrainingState) -> dict[str, list[float]]:
    """The checksums of each role, and of the averaged weights of all."""
    sums = checksums(state.parameters | owned_by(state))
    if experiment.average is None:
        return sums
    means = averaged(model, experiment, state).parameters
    flat = torch.cat([means[name].flatten() for name in sorted(means, key=upstream)])
    return sums | {"average": checksum(flat)}


def buffers_of(state: TrainingState) -> dict[str, list[float]]:
    """The checksums of the buffers by DomainBed's names, and the weights of GroupDRO."""
    found = {upstream(name): checksum(buffer.double().flatten()) for name, buffer in state.buffers.items()}
    risk = state.penalty.get("risk")
    return found | {"q": risk.softmax(0).tolist()} if isinstance(risk, Tensor) else found


def updates(experiment: Experiment, side: int) -> tuple[list[dict[str, list[float]]], Tensor, TrainingState]:
    """The checksums before the first update and after each of four, the last prediction and the last state."""
    model = golden_model(experiment, side)
    state = first_state(experiment, model, 3)
    state = evolve(state, penalty=with_first_values(state.penalty), descent=with_first_values(state.descent))
    found = [sums_of(model, experiment, state)]
    for step in range(4):
        state, _ = advance(model, experiment, state, batch_of(step, side))
        found.append(sums_of(model, experiment, state))
    evaluated = averaged(model, experiment, state)
    place(model, evaluated.parameters, evaluated.buffers)
    with torch.no_grad(), evaluating(model):
        return found, model.head(model.featurizer(batch_of(99, side).inputs)), state
