"""Runs DomainBed's own algorithms on the problem of the golden updates: ``domainbed_updates.py CHECKOUT SIDE FILE``.

CHECKOUT is a clone of facebookresearch/DomainBed, SIDE the side of the images. With SIDE 28 the runs are compared with
tests/goldens/updates.json, from which all take their hyper-parameters. The numbers are written to FILE.
"""

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden_runs import RUNS, batch_of, checksum, first_value, role_of
from torch import Tensor

# Names of the goldens for the beginnings of DomainBed's own names.
HEAD = {"classifier.": "head."}
RENAMED = {
    "Fish": {"network.net.0.": "featurizer.", "network.net.1.": "head."},
    "SagNet": {"network_f.": "featurizer.", "network_c.": "head.", "network_s.": "style."},
    "ADRMX": {"featurizer_label.": "featurizer.", "classifier_label_1.": "head."},
}
# The same modules once more, averages and clones.
REPEATED = ("network.0.", "network.1.", "network_sma.", "network_inner.")
AVERAGED = {"0.": "featurizer.", "1.": "head."}


def renamed(name: str, beginnings: dict[str, str]) -> str:
    for theirs, ours in beginnings.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def parameters_of(algorithm: str, model: Any) -> dict[str, Tensor]:
    """The parameters by the names of the goldens."""
    found = {name: value for name, value in model.named_parameters() if not name.startswith(REPEATED)}
    # A list that torch does not see.
    for number, head in enumerate(model.clist if algorithm == "TRM" else ()):
        found |= {f"heads.{number}.{name}": value for name, value in head.named_parameters()}
    return {renamed(name, RENAMED.get(algorithm, HEAD)): value for name, value in found.items()}


def sums_of(algorithm: str, model: Any) -> dict[str, list[float]]:
    roles = dict[str, list[Tensor]]()
    for name, value in sorted(parameters_of(algorithm, model).items()):
        roles.setdefault(role_of(name), []).append(value.detach().flatten())
    if algorithm == "ERMPlusPlus":
        means = {renamed(name, AVERAGED): mean for name, mean in model.network_sma.named_parameters()}
        roles["average"] = [means[name].detach().flatten() for name in sorted(means)]
    return {role: checksum(torch.cat(parts)) for role, parts in roles.items()}


class Draws(list[Any]):
    """What an update draws: the kind, the shape, and the numbers or, beyond 64, their checksum."""

    def recorded(self, kind: str, draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*args: Any, **kwargs: Any) -> Any:
            value = draw(*args, **kwargs)
            # Those with a generator of their own are the problem's.
            if kwargs.get("generator") is None:
                numbers = torch.as_tensor(value).detach()
                kept = numbers.tolist() if numbers.numel() <= 64 else checksum(numbers.double().flatten())
                self.append([kind, list(numbers.shape), kept])
            return value

        return drawn

    def watch(self) -> None:
        for place, kind in (
            (torch, "rand"),
            (torch, "randperm"),
            (Tensor, "normal_"),
            (np.random, "beta"),
            (np.random, "randint"),
        ):
            setattr(place, kind, self.recorded(kind, getattr(place, kind)))


def gradients_of_samples(self: Any, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Those that DomainBed's Fishr takes from BackPACK 1.3, sample by sample."""
    losses = self.bce_extended(logits, labels)
    return {
        name: torch.stack([torch.autograd.grad(loss, weight, create_graph=True)[0].flatten() for loss in losses])
        for name, weight in self.classifier.named_parameters()
    }


def adapted(checkout: str) -> tuple[Any, Any]:
    """DomainBed's algorithms and registry, in float64 on a CPU, with the MNIST CNN for images of any side."""
    sys.path.insert(0, checkout)
    parts = ("algorithms", "networks", "hparams_registry")
    algorithms, networks, registry = (importlib.import_module(f"domainbed.{part}") for part in parts)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_default_dtype(torch.float64)
    Tensor.cuda = torch.nn.Module.cuda = lambda self: self
    networks.Featurizer = lambda shape, hparams: networks.MNIST_CNN(shape)
    algorithms.extend = lambda module: module
    algorithms.Fishr._get_grads = gradients_of_samples
    return algorithms, registry


def seed(number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)


def run(run: str, side: int, algorithms: Any, registry: Any, draws: Draws) -> dict[str, Any]:
    algorithm, variant = run.split("/")
    changed = RUNS[run]["hparams"]
    hparams = registry.default_hparams(algorithm, "RotatedMNIST") | changed | {"batch_size": 8}
    with contextlib.redirect_stdout(io.StringIO()):
        model = algorithms.get_algorithm_class(algorithm)((2, side, side), 3, 3, hparams)
    with torch.no_grad():
        for name, value in parameters_of(algorithm, model).items():
            value.copy_(first_value(name, tuple(value.shape)))
    if algorithm == "Transfer":
        model.adv_classifier.load_state_dict(model.classifier.state_dict())
    if algorithm == "ERMPlusPlus":
        model.network_sma.load_state_dict(model.network.state_dict())
        model.sma_start_iter = 3 if variant == "active" else model.sma_start_iter
    found: dict[str, Any] = {"hparams": changed, "first": sums_of(algorithm, model), "weights": [], "draws": []}
    for step in range(4):
        seed(step)
        batch = batch_of(step, side)
        draws.clear()
        model.update(list(zip(batch.inputs.split(8), batch.labels.split(8), strict=True)))
        found["draws"].append(list(draws))
        found["weights"].append(sums_of(algorithm, model))
    model.eval()
    seed(99)
    with torch.no_grad():
        found["predict"] = model.predict(batch_of(99, side).inputs)[:2].tolist()
    buffers = dict(model.named_buffers())
    if algorithm == "GroupDRO":
        found["buffers"] = {"q": buffers["q"].tolist()}
    if algorithm == "ARM":
        found["buffers"] = {name: checksum(buffers[name]) for name in RUNS[run]["buffers"]}
    # Those that the seeds alone give, or nothing.
    if "draws" not in RUNS[run]:
        del found["draws"]
    return found


def deviation(found: Any, expected: Any) -> float:
    """The greatest relative deviation of two trees of numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), (list(found), list(expected))
        return max((deviation(found[key], value) for key, value in expected.items()), default=0.0)
    if isinstance(expected, list):
        return max((deviation(a, b) for a, b in zip(found, expected, strict=True)), default=0.0)
    if isinstance(expected, float):
        return abs(found - expected) / (abs(expected) or 1.0)
    assert found == expected, (found, expected)
    return 0.0


def main(checkout: str, side: int, file: Path) -> None:
    algorithms, registry = adapted(checkout)
    draws = Draws()
    draws.watch()
    found = dict[str, Any]()
    for name, expected in RUNS.items():
        found[name] = run(name, side, algorithms, registry, draws)
        print(name, f"deviates by {deviation(found[name], expected):.1e}" if side == 28 else "")
    lines = (f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}" for name, value in found.items())
    file.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
