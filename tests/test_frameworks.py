"""Penalties in other frameworks: a resumed run is bit-identical, and Fishr in DomainBed trains as DomainBed's own."""

import importlib.util
import math
import runpy
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from scripts import EXAMPLES, run_each
from torch import Tensor, nn

from fishr.models import MNISTCNN
from fishr.tensor_trees import named_tensors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked")]


@pytest.mark.parametrize(
    ("framework", "half", "whole", "files"),
    [
        ("lightning", 2, 4, ["lightning.ckpt"]),
        (
            "accelerate",
            2,
            4,
            ["checkpoint/model.safetensors", *(f"checkpoint/custom_checkpoint_{i}.pkl" for i in (0, 1))],
        ),
        ("trainer", 10, 20, [f"trainer/checkpoint-20/{name}" for name in ("model.safetensors", "penalty.pt")]),
    ],
)
def test_a_run_that_is_resumed_in_a_framework_is_bit_identical(
    framework: str, half: int, whole: int, files: list[str], tmp_path: Path
) -> None:
    if importlib.util.find_spec({"trainer": "transformers"}.get(framework, framework)) is None:
        pytest.skip(f"{framework} is not installed")
    runs = [("whole", [str(whole)]), ("resumed", [str(half)]), ("resumed", [str(whole)])]
    run_each(EXAMPLES / f"with_{framework}.py", runs, tmp_path)
    found = []
    for file in files:
        one, other = (tensors_of(tmp_path / folder / file) for folder in ("whole", "resumed"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file
        found += one
    # The penalty's moving average is among them, so that the run depends on what was saved.
    assert any("_extra_state" in name for name in found), found


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    saved = torch.load(path, weights_only=True)
    return dict(named_tensors({key: saved[key] for key in saved if key not in ("callbacks", "loops")}))


class StandIn(nn.Module):
    """What DomainBed's ERM has, on its network for small images in float64."""

    def __init__(
        self, input_shape: tuple[int, ...], num_classes: int, num_domains: int, hparams: dict[str, Any]
    ) -> None:
        super().__init__()
        self.hparams = hparams
        self.featurizer = MNISTCNN()(input_shape, torch.Generator()).double()
        self.classifier = nn.Linear(128, num_classes).double()
        self.optimizer = torch.optim.Adam(
            [*self.featurizer.parameters(), *self.classifier.parameters()], lr=hparams["lr"]
        )


@pytest.fixture
def algorithm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's class on the stand-in, with the golden numbers' first weights."""
    algorithms = ModuleType("domainbed.algorithms")
    monkeypatch.setitem(sys.modules, "domainbed", ModuleType("domainbed"))
    monkeypatch.setitem(sys.modules, "domainbed.algorithms", algorithms)
    monkeypatch.setattr(algorithms, "ERM", StandIn, raising=False)
    kind = runpy.run_path(str(EXAMPLES / "domainbed_fishr.py"))["Fishr"]

    def build() -> Any:
        hparams = {"lr": 1e-3, "lambda": 1000.0, "penalty_anneal_iters": 2, "ema": 0.95}
        made = kind((2, 28, 28), num_classes=3, num_domains=3, hparams=hparams)
        for name, parameter in named_as_upstream(made).items():
            parameter.data.copy_(first_value(name, parameter.shape))
        return made

    return build


def named_as_upstream(algorithm: Any) -> dict[str, nn.Parameter]:
    """Parameters by the names that the golden numbers have: "featurizer.conv1.weight", "featurizer.bn0.bias", …"""
    layers = [module for module in algorithm.featurizer if isinstance(module, nn.Conv2d | nn.GroupNorm)]
    names = [name for i in range(4) for name in (f"featurizer.conv{i + 1}", f"featurizer.bn{i}")]
    named = {*zip(names, layers, strict=True), ("head", algorithm.classifier)}
    return {f"{layer}.{name}": p for layer, module in named for name, p in module.named_parameters()}


def first_value(name: str, shape: torch.Size) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    if len(shape) > 1:
        return drawn / math.sqrt(math.prod(shape[1:]))
    return 0.1 * drawn + name.endswith(".weight")


def minibatches(step: int) -> list[tuple[Tensor, Tensor]]:
    """The batch of each domain at a step."""
    drawn = []
    for domain in range(3):
        generator = torch.Generator().manual_seed(1000 * step + domain)
        inputs = torch.rand(8, 2, 28, 28, generator=generator, dtype=torch.float64) * (1 + domain)
        labels = torch.randint(3, (8,), generator=generator)
        inputs[:, 0] += labels.view(-1, 1, 1)
        drawn.append((inputs, labels))
    return drawn


def checksums(algorithm: Any, role: str) -> list[float]:
    """Σw, Σw², Σ w_i cos i of a role's parameters in alphabetical order."""
    named = named_as_upstream(algorithm)
    weights = torch.cat([named[name].detach().flatten() for name in sorted(named) if name.startswith(role)])
    angles = torch.arange(len(weights), dtype=torch.float64).cos()
    return [weights.sum().item(), weights.square().sum().item(), (weights * angles).sum().item()]


# Weights after four updates, two of them after the warm-up, and the losses and penalties that were reported. Source:
# facebookresearch/DomainBed at b93c22a, its class Fishr on the network, weights and batches above, torch 2.15, float64.
GOLDEN = {
    "featurizer": [439.81489357436527, 603.8113575215591, -6.757398679132455],
    "head": [-0.5272625178186645, 1.022673606286781, 0.48366218000107425],
}
GOLDEN_LOSSES = [1.1501700781277178, 1.5403792137133552, 8.616437106060463, 13.481357434456456]
GOLDEN_PENALTIES = [0.0018924099120232777, 0.00452348708847329, 0.007468663919319101, 0.012818235523848571]


def test_fishr_in_domainbed_has_the_weights_of_domainbeds_own(algorithm: Any) -> None:
    ours = algorithm()
    reported = [ours.update(minibatches(step)) for step in range(4)]
    assert [row["loss"] for row in reported] == pytest.approx(GOLDEN_LOSSES, rel=1e-9)
    assert [row["penalty"] for row in reported] == pytest.approx(GOLDEN_PENALTIES, rel=1e-9)
    for role, numbers in GOLDEN.items():
        assert checksums(ours, role) == pytest.approx(numbers, rel=1e-9)


def test_a_checkpoint_of_domainbed_has_the_moving_average(algorithm: Any, tmp_path: Path) -> None:
    ours, loaded = algorithm(), algorithm()
    for step in range(2):
        ours.update(minibatches(step))
    torch.save(ours.state_dict(), tmp_path / "model.pkl")
    loaded.load_state_dict(torch.load(tmp_path / "model.pkl"))
    # The optimizers are new in both at the end of the warm-up, so that the next update depends on the weights, the step
    # and the moving average alone.
    first, second = ours.update(minibatches(2)), loaded.update(minibatches(2))
    assert first == second
    assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), loaded.parameters(), strict=True))
