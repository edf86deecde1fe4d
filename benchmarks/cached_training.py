"""Time of a training step of the head alone: through a frozen featurizer, and on its features computed once."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import attrs
import torch
from torch import nn

from benchmarks.machine import device, interleaved
from benchmarks.table import Cell, Spread, Table
from benchmarks.ways import Disagreement
from fishr.data import Domain, Domains, Minibatch
from fishr.losses import CrossEntropy
from fishr.models import MLP, LinearHead
from fishr.penalties import Fishr, Scaled, Total
from fishr.training import (
    Adam,
    Experiment,
    Frozen,
    Objective,
    TrainingState,
    advance,
    build_model,
    domain_features,
    first_state,
)

_CLASSES = 7


@attrs.frozen
class ResNet18:
    """torchvision's ResNet-18 without its last layer, with random weights."""

    def __call__(self, shape: tuple[int, ...], generator: torch.Generator) -> nn.Module:
        from torchvision.models import resnet18

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            network: Any = resnet18()
        network.fc = nn.Identity()
        return network

    def features(self, shape: tuple[int, ...]) -> int:
        return 512


def table(quick: bool) -> Table:
    """Milliseconds of a step of each way, and how many times faster the one on features is.

    Raises:
        Disagreement: the two ways do not end in the same bits.
    """
    side, pictures = (32, 16) if quick else (96, 128)
    cases: dict[str, tuple[Any, tuple[int, ...]]] = {"MLP 390, 390 on 2×14×14": (MLP(), (2, 14, 14))}
    if find_spec("torchvision") is not None:
        cases[f"ResNet-18 on 3×{side}×{side}"] = (ResNet18(), (3, side, side))
    return Table(
        "A step of a linear head with Fishr, 3 domains × 32 rows, Adam; both ways end in the same bits; [quartiles]",
        ("featurizer", "all trained ms", "frozen ms", "on features ms", "frozen / on features"),
        tuple((name, *_row(featurizer, shape, pictures, quick)) for name, (featurizer, shape) in cases.items()),
    )


def _row(featurizer: Any, shape: tuple[int, ...], rows: int, quick: bool) -> tuple[Cell, ...]:
    domains = _pictures(rows, shape)
    whole = _experiment(featurizer)
    frozen = attrs.evolve(whole, featurizer=Frozen(featurizer))
    alone = attrs.evolve(whole, featurizer=MLP(widths=()))
    features = _features(frozen, domains)
    _check_agreement(_after(frozen, domains), _after(alone, features))
    steppers = {
        "whole": _stepper(whole, domains),
        "frozen": _stepper(frozen, domains),
        "features": _stepper(alone, features),
    }
    times = interleaved(steppers, rounds=7, quick=quick)
    return *(times.milliseconds(name) for name in steppers), Spread(*times.ratio("frozen", "features"), 1)


def _experiment(featurizer: Any) -> Experiment:
    return Experiment(
        name="cached training",
        data=None,  # pyright: ignore[reportArgumentType]
        featurizer=featurizer,
        head=LinearHead(),
        loss=CrossEntropy(),
        objective=Objective(penalty=Total(fishr=Scaled(Fishr(ema=0.95), 1000.0))),
        optimizer=Adam(lr=1e-3),
        batches=Minibatch(size=32),
        steps=1,
    )


def _features(experiment: Experiment, domains: Domains) -> Domains:
    """What ``fishr cache features`` writes, in memory."""
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    moved = [
        attrs.evolve(domain, inputs=torch.cat([z for z, _ in domain_features(model, experiment, state, domain)]))
        for domain in domains.training
    ]
    return attrs.evolve(domains, training=tuple(moved))


def _stepper(experiment: Experiment, domains: Domains) -> Callable[[], TrainingState]:
    """A function that makes the next step of a training of its own."""
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))

    def step() -> TrainingState:
        nonlocal state
        state, _ = advance(model, experiment, state, domains.training)
        return state

    return step


def _after(experiment: Experiment, domains: Domains) -> TrainingState:
    step = _stepper(experiment, domains)
    return [step() for _ in range(3)][-1]


def _check_agreement(frozen: TrainingState, features: TrainingState) -> None:
    for name in ("head.weight", "head.bias"):
        if not torch.equal(frozen.parameters[name], features.parameters[name]):
            raise Disagreement(f"{name} after 3 steps: got other bits on features than through the frozen featurizer")


def _pictures(rows: int, shape: tuple[int, ...]) -> Domains:
    """Random noise in three domains."""
    generator = torch.Generator().manual_seed(0)

    def domain(name: str) -> Domain:
        inputs = torch.rand(rows, *shape, generator=generator)
        return Domain(name, inputs.to(device()), torch.randint(_CLASSES, (rows,), generator=generator).to(device()))

    return Domains((domain("first"), domain("second"), domain("third")), (), classes=_CLASSES)
