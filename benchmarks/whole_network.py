"""Time of a step that matches the gradients of all layers of a network, beside plain training's."""

from collections.abc import Callable

from attrs import evolve

from benchmarks.machine import interleaved
from benchmarks.step import ERM, OURS, Case, benchmark, steppers
from benchmarks.table import Cell, Spread, Table, Verdict
from fishr.training import Experiment

_ROUNDS = 9


def table(quick: bool) -> Table:
    """Milliseconds of a step, and how many times ERM's."""
    return Table(
        'A training step of Fishr on layers = ["featurizer", "head"] and of ERM, the batch at hand; [quartiles]',
        ("batch and model", "ERM, ms", "Fishr on all layers, ms", "× ERM", "target"),
        tuple(_row(case, quick) for case in _cases(quick)),
    )


def _cases(quick: bool) -> tuple[Case, ...]:
    rows, shape = 4 if quick else 64, (2, 28, 28)
    title = f"2 × {rows} × 2×28×28, MNIST CNN"
    cnn = Case(title, _on_all_layers(benchmark("ColoredMNIST")), rows, 2, shape, 2, target=5.0, rounds=_ROUNDS)
    title, network = "3 × 8 × 3×64×64, ResNet-18", _on_all_layers(benchmark("PACS"))
    return (cnn,) if quick else (cnn, Case(title, network, 8, 3, (3, 64, 64), 7, target=7.0, rounds=_ROUNDS))


def _on_all_layers(experiment: Callable[[str], Experiment]) -> Callable[[str], Experiment]:
    def on_all(method: str) -> Experiment:
        made = experiment(method)
        return made if method == "erm" else evolve(made, layers=("featurizer", "head"))

    return on_all


def _row(case: Case, quick: bool) -> tuple[Cell, ...]:
    times = interleaved(steppers(case), rounds=case.rounds, quick=quick)
    ratio = Spread(*times.ratio(OURS, ERM), 2)
    judged = None if quick or case.target is None else Verdict(ratio.median, case.target, at_least=False)
    return case.title, times.milliseconds(ERM, 0), times.milliseconds(OURS, 0), ratio, judged
