"""Time of whole training steps, with the penalty and without."""

from collections.abc import Callable

import torch
from attrs import evolve, frozen
from tabulate import tabulate

from benchmarks.machine import device, interleaved, verdict
from fishr.data import Domain, Domains
from fishr.protocols import colored_mnist
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.training import Experiment, advance, build_model, first_state
from fishr.types import DomainBatch


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
    """

    title: str
    experiment: Callable[[str], Experiment]
    rows: int
    domains: int
    shape: tuple[int, ...]
    classes: int
    target: float | None
    rounds: int = 15


def table(quick: bool) -> str:
    """Milliseconds of a step of ERM and of Fishr, and their ratio."""
    rows = [_row(case, quick) for case in _cases(quick)]
    headers = ("batch and model", "ERM ms", "Fishr ms", "Fishr / ERM", "target")
    return "A whole training step (fishr.training.advance, the batch at hand), [quartiles]\n" + tabulate(
        rows, headers, disable_numparse=True
    )


def _cases(quick: bool) -> tuple[Case, ...]:
    rows = 500 if quick else 25_000
    mlp = Case(f"2 × {rows:,} × 2×14×14, MLP 390, 390", colored_mnist, rows, 2, (2, 14, 14), 2, target=1.10)
    rows = 4 if quick else 64
    cnn = Case(f"2 × {rows} × 2×28×28, MNIST CNN", _benchmark("ColoredMNIST"), rows, 2, (2, 28, 28), 2, target=1.05)
    rows, side = (2, 32) if quick else (16, 96)
    title, shape = f"3 × {rows} × 3×{side}×{side}, ResNet-18", (3, side, side)
    resnet = Case(title, _benchmark("PACS"), rows, 3, shape, 7, target=None, rounds=9)
    return mlp, cnn, resnet


def _benchmark(dataset: str) -> Callable[[str], Experiment]:
    """DomainBed's experiment on a data set, with a small network of random weights where it has a large one."""

    def experiment(method: str) -> Experiment:
        settings = Settings(hparams={"penalty_anneal_iters": 0}, backbone="resnet18", weights="random")
        algorithm = {"erm": "ERM", "fishr": "Fishr"}[method]
        made = Job(dataset, algorithm, (0,), hparams_seed=0, trial_seed=0, settings=settings).experiment()
        # Of equal seeds, so that both train the same weights.
        return evolve(made, seed=0)

    return experiment


def _row(case: Case, quick: bool) -> list[str]:
    domains = _synthetic(case)
    candidates = {method: _stepper(case.experiment(method), domains) for method in ("erm", "fishr")}
    times = interleaved(candidates, rounds=2 if quick else case.rounds)
    ratio, low, high = times.ratio("fishr", "erm")
    return [
        case.title,
        *(f"{1e3 * times.median(method):.1f}" for method in candidates),
        f"{ratio:.3f}× [{low:.3f}, {high:.3f}]",
        "" if quick or case.target is None else verdict(ratio, case.target, at_least=False),
    ]


def _stepper(experiment: Experiment, domains: Domains) -> Callable[[], object]:
    """A function that makes the next step of a training of its own, always on the same batch."""
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    batch = DomainBatch(
        torch.cat([domain.inputs for domain in domains.training]),
        torch.cat([domain.labels for domain in domains.training]),
        tuple(len(domain.labels) for domain in domains.training),
    )

    def step() -> None:
        nonlocal state
        state, _ = advance(model, experiment, state, batch)

    return step


def _synthetic(case: Case) -> Domains:
    """Random noise; of two channels one is empty, as where they are colours."""
    generator = torch.Generator().manual_seed(0)

    def domain(name: str) -> Domain:
        inputs = torch.rand(case.rows, *case.shape, generator=generator)
        if case.shape[0] == 2:
            inputs[torch.arange(case.rows), torch.randint(2, (case.rows,), generator=generator)] = 0.0
        labels = torch.randint(case.classes, (case.rows,), generator=generator)
        return Domain(name, inputs.to(device()), labels.to(device()))

    return Domains(tuple(domain(f"domain {index}") for index in range(case.domains)), (), case.classes)
