"""Time of a whole training step of Colored MNIST's size, with the penalty and without."""

from collections.abc import Callable

import torch
from tabulate import tabulate

from benchmarks.machine import device, interleaved, verdict
from fishr.data import Domain, Domains
from fishr.protocols import colored_mnist
from fishr.training import advance, build_model, first_state

_TARGET = 1.10


def table(quick: bool) -> str:
    """Milliseconds of a full-batch step of ERM and of Fishr, and their ratio."""
    domains = _synthetic(rows=500 if quick else 25_000)
    candidates = {method: _stepper(method, domains) for method in ("erm", "fishr")}
    times = interleaved(candidates, rounds=2 if quick else 15)
    ratio, low, high = times.ratio("fishr", "erm")
    row = [
        f"2 × {len(domains.training[0].labels):,} × 2×14×14, MLP 390, 390",
        *(f"{1e3 * times.median(method):.1f}" for method in candidates),
        f"{ratio:.3f}× [{low:.3f}, {high:.3f}]",
        "" if quick else verdict(ratio, _TARGET, at_least=False),
    ]
    return "A whole training step (fishr.training.advance, full batch), [quartiles]\n" + tabulate(
        [row], ("batch and model", "ERM ms", "Fishr ms", "Fishr / ERM", "target"), disable_numparse=True
    )


def _stepper(method: str, domains: Domains) -> Callable[[], object]:
    """A function that makes the next step of a training of its own."""
    experiment = colored_mnist(method)
    model = build_model(experiment, domains)
    state = first_state(experiment, model, len(domains.training))
    batch = experiment.batches.draw(domains.training, torch.Generator())

    def step() -> None:
        nonlocal state
        state, _ = advance(model, experiment, state, batch)

    return step


def _synthetic(rows: int) -> Domains:
    """Pictures of random noise in Colored MNIST's shape: one of two channels is empty."""
    generator = torch.Generator().manual_seed(0)

    def domain(name: str) -> Domain:
        inputs = torch.rand(rows, 2, 14, 14, generator=generator)
        inputs[torch.arange(rows), torch.randint(2, (rows,), generator=generator)] = 0.0
        labels = torch.randint(2, (rows,), generator=generator)
        return Domain(name, inputs.to(device()), labels.to(device()))

    return Domains((domain("first"), domain("second")), (), classes=2)
