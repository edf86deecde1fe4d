"""Time of whole training steps: without the penalty, with it, and with it as published."""

from collections.abc import Callable

import torch
from attrs import evolve, frozen

from benchmarks.machine import device, interleaved
from benchmarks.published import TO_ALL, TO_FEATURES, published_step
from benchmarks.table import Cell, Spread, Table, Verdict
from benchmarks.ways import Disagreement
from fishr.data import Domain, Domains
from fishr.protocols import colored_mnist
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.training import Experiment, advance, build_model, first_state
from fishr.training.compute import products
from fishr.training.model import place
from fishr.types import DomainBatch

ERM, OURS = "ERM", "Fishr, ours"
_METHODS = {ERM: "erm", OURS: "fishr"}
_EMA, _WEIGHT = 0.95, 1000.0
_TOLERANCE = 1e-3


@frozen
class Case:
    """A step's size: what ``experiment`` makes of "erm" and "fishr", on domains of random inputs.

    Args:
        title: batch and model.
        experiment: from a method to its experiment, the penalty at its full weight from the first step.
        rows: of each domain in a step.
        domains: K.
        shape: of an input.
        classes: C.
        target: that the ratio is to stay below; None: there is none.
        rounds: of the measurement.
        published: whether the published way is measured as well.
    """

    title: str
    experiment: Callable[[str], Experiment]
    rows: int
    domains: int
    shape: tuple[int, ...]
    classes: int
    target: float | None
    rounds: int = 15
    published: bool = True


def table(quick: bool) -> Table:
    """Milliseconds of a step of each way, and how many times ERM's.

    Raises:
        Disagreement: the published way's penalty is another number.
    """
    return Table(
        "A whole training step (fishr.training.advance, or a loop as published), the batch at hand; on a CPU the "
        "ResNets have few rows and rounds; [quartiles]",
        ("batch and model", "way", "ms", "× ERM", "target"),
        tuple(row for case in the_cases(quick) for row in _rows(case, quick)),
    )


def the_cases(quick: bool) -> tuple[Case, ...]:
    rows = 500 if quick else 25_000
    title = f"2 × {rows:,} × 2×14×14, MLP 390, 390"
    # The script that it reproduces has a loop of its own, without BatchGrad.
    mlp = Case(title, colored_mnist, rows, 2, (2, 14, 14), 2, target=1.10, published=False)
    rows = 4 if quick else 64
    cnn = Case(f"2 × {rows} × 2×28×28, MNIST CNN", benchmark("ColoredMNIST"), rows, 2, (2, 28, 28), 2, target=1.05)
    resnet18 = _resnet("resnet18", quick, rounds=5)
    return (mlp, cnn, resnet18) if quick else (mlp, cnn, resnet18, _resnet("resnet50", quick, rounds=5, target=1.02))


def _resnet(backbone: str, quick: bool, rounds: int, target: float | None = None) -> Case:
    rows, side = (2, 32) if quick else (8, 224) if device().type == "cpu" else (32, 224)
    title, shape = f"3 × {rows} × 3×{side}×{side}, {backbone.replace('resnet', 'ResNet-')}", (3, side, side)
    return Case(title, benchmark("PACS", backbone), rows, 3, shape, 7, target, rounds)


def benchmark(dataset: str, backbone: str = "resnet18") -> Callable[[str], Experiment]:
    """DomainBed's experiment on a data set, with random weights where it has a ResNet."""

    def experiment(method: str) -> Experiment:
        settings = Settings(hparams={"penalty_anneal_iters": 0}, backbone=backbone, weights="random")
        algorithm = {"erm": "ERM", "fishr": "Fishr"}[method]
        made = Job(dataset, algorithm, (0,), hparams_seed=0, trial_seed=0, settings=settings).experiment()
        # Of equal seeds, so that both train the same weights.
        return evolve(made, seed=0)

    return experiment


def steppers(case: Case) -> dict[str, Callable[[], float]]:
    """A step of ERM and one of ours, as functions that make it again and again and return the penalty.

    Going on would train them into different weights, and a batch that is known by heart into numbers too small for the
    processor to be fast with.
    """
    domains = synthetic(case)
    return {name: _stepper(case.experiment(method), domains) for name, method in _METHODS.items()}


def _rows(case: Case, quick: bool) -> list[tuple[Cell, ...]]:
    candidates = steppers(case)
    first = candidates[OURS]()
    for way in (TO_FEATURES, TO_ALL) if case.published else ():
        candidates[way] = _published(case, way)
        if not abs((apart := candidates[way]()) - first) <= _TOLERANCE * abs(first):
            raise Disagreement(f"{way}: the first penalty is {apart:.6g}, ours is {first:.6g}")
    times = interleaved(candidates, rounds=case.rounds, quick=quick)
    rows = list[tuple[Cell, ...]]()
    for name in candidates:
        ratio = None if name == ERM else Spread(*times.ratio(name, ERM), 3)
        judged = None
        if ratio is not None and name == OURS and not quick and case.target is not None:
            judged = Verdict(ratio.median, case.target, at_least=False)
        rows.append((case.title, name, times.milliseconds(name, 1), ratio, judged))
    return rows


def _stepper(experiment: Experiment, domains: Domains) -> Callable[[], float]:
    model, batch = build_model(experiment, domains), batch_of(domains)
    state = first_state(experiment, model, len(domains.training))

    def step() -> float:
        _, record = advance(model, experiment, state, batch)
        return sum(term.value / term.weight for term in record.terms.values())

    return step


def _published(case: Case, way: str) -> Callable[[], float]:
    experiment, domains = case.experiment("fishr"), synthetic(case)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    place(model, state.parameters, state.buffers)
    # A learning rate of zero, so that it too makes the same step.
    step = published_step(model, batch_of(domains), way, _EMA, _WEIGHT, lr=0.0)

    def in_the_same_precision() -> float:
        with products("ieee"):
            return step()

    return in_the_same_precision


def batch_of(domains: Domains) -> DomainBatch:
    return DomainBatch(
        torch.cat([domain.inputs for domain in domains.training]),
        torch.cat([domain.labels for domain in domains.training]),
        tuple(len(domain.labels) for domain in domains.training),
    )


def synthetic(case: Case) -> Domains:
    """Random noise; of two channels one is empty, as where they are colours."""
    generator = torch.Generator().manual_seed(0)

    def domain(name: str) -> Domain:
        inputs = torch.rand(case.rows, *case.shape, generator=generator)
        if case.shape[0] == 2:
            inputs[torch.arange(case.rows), torch.randint(2, (case.rows,), generator=generator)] = 0.0
        labels = torch.randint(case.classes, (case.rows,), generator=generator)
        return Domain(name, inputs.to(device()), labels.to(device()))

    return Domains(tuple(domain(f"domain {index}") for index in range(case.domains)), (), case.classes)
