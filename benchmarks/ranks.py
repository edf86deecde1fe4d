"""Time of a step, a penalty and a gradient's sum on 1, 2 and 4 ranks of this machine that share a batch, by gloo."""

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.machine import quartiles
from benchmarks.table import Cell, Spread, Table
from benchmarks.ways import Disagreement
from fishr.data import Domain, Domains, FullBatch
from fishr.protocols.domainbed.job import Job
from fishr.protocols.domainbed.settings import Settings
from fishr.ranks import Ranks, add_over_ranks
from fishr.statistics.fused_gap import stack_gap
from fishr.statistics.gap_blocks import GapRule
from fishr.statistics.linear_heads import Factors
from fishr.training import advance, build_model, first_state

COUNTS = (1, 2, 4)
STEP, PENALTY, SUM = "a step of the MNIST CNN", "penalty, forward and backward", "sum of a gradient"
# Domains, samples of each, features and classes; numbers in a network's gradient, as many as a ResNet-50 has.
_SIZES, _QUICK = (5, 32, 2048, 345, 25_600_000), (2, 8, 32, 4, 10_000)
_TOLERANCE = 1e-5
_PATIENCE = timedelta(minutes=10)


def table(quick: bool) -> Table:
    """Milliseconds on each number of ranks; all wait for each other, so that is every rank's time.

    Raises:
        Disagreement: the ranks' penalty is not that of one.
    """
    domains, samples, features, classes, numbers = _QUICK if quick else _SIZES
    with tempfile.TemporaryDirectory() as folder:
        # From a server that has loaded torch, once for all of them.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", "benchmarks.ranks"])
        results = context.SimpleQueue()
        given = (folder, quick, results)
        processes = [context.Process(target=_be_rank, args=(n, *given), daemon=True) for n in range(max(COUNTS))]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError(f"ranks ended with exit codes {[process.exitcode for process in processes]}")
        values, seconds = results.get()
    for count in COUNTS:
        if not abs(values[count] - values[1]) <= _TOLERANCE * abs(values[1]):
            raise Disagreement(f"{count} ranks: the penalty is {values[count]:.6g}, on one it is {values[1]:.6g}")
    return Table(
        f"Ranks on this machine, gloo, one thread each: a Fishr step on 2 × {_rows_of_step(quick)} rows in all; "
        f"penalty on {domains} × {samples}, {features}→{classes}; gradient of {numbers:,} float32; [quartiles]",
        ("what", "ranks", "ms", "× one rank's"),
        tuple(_row(what, count, seconds) for what in (STEP, PENALTY, SUM) for count in COUNTS),
    )


def _row(what: str, count: int, seconds: dict[tuple[str, int], list[float]]) -> tuple[Cell, ...]:
    own, one = seconds[what, count], seconds[what, 1]
    # To sum one rank's gradient is to do nothing.
    by = None if count == 1 or what == SUM else Spread(*quartiles([a / b for a, b in zip(own, one, strict=True)]))
    return what, count, Spread(*quartiles([1e3 * each for each in own])), by


def _be_rank(number: int, folder: str, quick: bool, results: "multiprocessing.SimpleQueue[object]") -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder, "store")), max(COUNTS))
    dist.init_process_group("gloo", store=store, rank=number, world_size=max(COUNTS), timeout=_PATIENCE)
    groups = {count: dist.new_group(list(range(count))) for count in COUNTS}
    teams = {count: Ranks(number, count, group) for count, group in groups.items() if number < count}
    sizes = _QUICK if quick else _SIZES
    values = dict[int, float]()
    calls = dict[tuple[str, int], Callable[[], object]]()
    for count, ranks in teams.items():
        calls[STEP, count] = _step(_rows_of_step(quick), ranks)
        calls[PENALTY, count] = penalty = _penalty(sizes, ranks)
        values[count] = penalty()
        calls[SUM, count] = _sum(sizes[-1], ranks)
    seconds: dict[tuple[str, int], list[float]] = {
        (what, count): [] for what in (STEP, PENALTY, SUM) for count in COUNTS
    }
    for turn in range(3 if quick else 10):
        for name, taken in seconds.items():
            # Those that have no part in it wait in the barrier, which takes no time of the processors.
            dist.barrier()
            if name in calls:
                begun = time.perf_counter()
                calls[name]()
                dist.barrier(groups[name[1]])
                taken += [time.perf_counter() - begun] * (turn > 0)
    if number == 0:
        results.put((values, seconds))
    dist.barrier()
    dist.destroy_process_group()


def _rows_of_step(quick: bool) -> int:
    return 8 if quick else 64


def _step(rows: int, ranks: Ranks) -> Callable[[], object]:
    """Of DomainBed's Fishr on Colored MNIST, on this rank's share of two domains, from the same state each time."""
    settings = Settings(hparams={"penalty_anneal_iters": 0}, weights="random")
    experiment = Job("ColoredMNIST", "Fishr", (0,), hparams_seed=0, trial_seed=0, settings=settings).experiment()
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(rows, 2, 28, 28, generator=generator) for _ in range(2)]
    domains = tuple(Domain(str(number), own, torch.arange(rows) % 2) for number, own in enumerate(images))
    model = build_model(experiment, Domains(domains, (), 2))
    state = first_state(experiment, model, len(domains))
    batch = FullBatch().draw(domains, generator, ranks)
    return lambda: advance(model, experiment, state, batch, ranks)


def _penalty(sizes: tuple[int, ...], ranks: Ranks) -> Callable[[], float]:
    """On this rank's share of each domain."""
    domains, samples, features, classes, _ = sizes
    generator = torch.Generator().manual_seed(0)
    wide, narrow = (torch.randn(domains, samples, width, generator=generator) for width in (features, classes))
    own = ranks.share(range(samples))
    z, deltas = (rows[:, own.start : own.stop].flatten(0, 1).requires_grad_() for rows in (wide, narrow))

    def call() -> float:
        value, _ = stack_gap([Factors(deltas, z, True)], (len(own),) * domains, GapRule(), ranks=ranks)
        torch.autograd.grad(value, [deltas, z])
        return float(value.detach())

    return call


def _sum(numbers: int, ranks: Ranks) -> Callable[[], object]:
    gradient = torch.zeros(numbers)
    return lambda: add_over_ranks(gradient, ranks)
