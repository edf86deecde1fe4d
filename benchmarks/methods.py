"""Time of a training step of each method of ``fishr.methods.METHODS``, and of DomainBed's own update, over ERM's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from attrs import evolve

from benchmarks.checkout import use
from benchmarks.machine import device, interleaved
from benchmarks.step import Case, batch_of, synthetic
from benchmarks.table import Cell, Spread, Table
from fishr.methods.every_method import METHODS
from fishr.protocols.domainbed.hyperparameters import hyperparameters
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.training import Experiment, advance, build_model, first_state

_ERM, _DATASET, _DOMAINS, _STEP = "ERM", "RotatedMNIST", 3, 10


def table(quick: bool, domainbed: Path | None = None) -> Table:
    """Milliseconds of a step of each method and times ERM's; of DomainBed's update too where a checkout is given."""
    side = 8 if quick else 28
    case = Case("", _experiment, 4 if quick else 32, _DOMAINS, (1, side, side), 10, None)
    theirs = {} if domainbed is None else _updates(domainbed, case)
    erm = _stepper(_ERM, case)
    # Both libraries' ERM run beside each method.
    bases = {"ours": erm} | ({"theirs": theirs[_ERM]} if theirs else {})
    rows = list[tuple[Cell, ...]]()
    for name in (_ERM, *(name for name in METHODS if name != _ERM)):
        candidates = {**bases, name: _stepper(name, case)}
        if name in theirs:
            candidates["DomainBed"] = theirs[name]
        times = interleaved(candidates, rounds=5, quick=quick)
        cells = list[Cell]([times.milliseconds(name, 1), Spread(*times.ratio(name, "ours"))])
        if name in theirs:
            cells += [times.milliseconds("DomainBed", 1), Spread(*times.ratio("DomainBed", "theirs"))]
            cells.append(Spread(*times.ratio(name, "DomainBed")))
        elif theirs:
            cells += [None] * 3
        rows.append((name, *cells))
    beside = ("DomainBed ms", "× its ERM", "ours / DomainBed") if theirs else ()
    return Table(
        f"A training step of each method, penalties at full weight, {_DOMAINS} × {case.rows} × 1×{side}×{side}, "
        "MNIST CNN; [quartiles]",
        ("method", "ms", "× ERM", *beside),
        tuple(rows),
    )


def _experiment(method: str) -> Experiment:
    ranges = hyperparameters(_DATASET, METHODS[method].ranges_on(_DATASET), hparams_seed=0, trial_seed=0)
    settings = Settings(hparams={name: 0 for name in ranges if name.endswith("_iters")})
    test = tuple(range(len(settings.benchmark(_DATASET).environments) - _DOMAINS))
    made = Job(_DATASET, method, test, hparams_seed=0, trial_seed=0, settings=settings).experiment()
    return evolve(made, seed=0)


def _stepper(method: str, case: Case) -> Callable[[], object]:
    """The same step again and again, after the warm-ups."""
    experiment, domains = case.experiment(method), synthetic(case)
    model, batch = build_model(experiment, domains), batch_of(domains)
    state = evolve(first_state(experiment, model, case.domains), step=_STEP)
    return lambda: advance(model, experiment, state, batch)


def _updates(checkout: Path, case: Case) -> dict[str, Callable[[], object]]:
    """DomainBed's updates of the methods that both have, from a checkout of its repository."""
    use(checkout)
    from domainbed import algorithms, hparams_registry  # pyright: ignore[reportMissingImports]

    domains = synthetic(case)
    minibatches = [(domain.inputs, domain.labels) for domain in domains.training]
    found = dict[str, Callable[[], object]]()
    for name in METHODS:
        # Names that differ in their spelling alone.
        theirs: Any = getattr(algorithms, name, None)
        if theirs is None or name not in algorithms.ALGORITHMS:
            continue
        hparams = hparams_registry.default_hparams(name, _DATASET)
        hparams |= {key: 0 for key in hparams if key.endswith("_iters")}
        torch.manual_seed(0)
        try:
            algorithm = theirs(case.shape, case.classes, case.domains, hparams).to(device())
            algorithm.update(minibatches, None)
        except Exception as error:  # some need CUDA, or packages that are absent
            print(f"DomainBed's {name} does not run here: {type(error).__name__}: {error}".splitlines()[0])
            continue
        found[name] = lambda algorithm=algorithm: algorithm.update(minibatches, None)
    return found
