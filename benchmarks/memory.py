"""Peak memory of one penalty step above what was there before it, each step in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import penalty
from benchmarks.machine import device, quartiles
from benchmarks.table import Cell, Spread, Table, Verdict
from benchmarks.ways import BATCH_GRAD, EXTENSION, OURS, VMAP, Size, make_problem, ways

_TARGET = 13.0
_WARM_UP = Size(2, 4, 8, 3)
_MIB = 2**20
_PEAK_RESET = Path("/proc/self/clear_refs")


def table(quick: bool) -> Table | str:
    """MiB of each way, and how many times the closed form's."""
    if device().type == "cpu" and not _PEAK_RESET.exists():
        return "Peak memory on a CPU is read from Linux's /proc, which this system lacks: not measured"
    cases = [size for size, _ in (penalty.QUICK[-1:] if quick else penalty.CASES)]
    # A moving average adds the same to each of them.
    emas = {size: (0.0,) if quick or size != penalty.LARGEST else penalty.EMAS for size in cases}
    return Table(
        "Peak memory of the same step above the state before it, each in a fresh process; [quartiles]",
        ("head", "ema", "way", "MiB", "× the closed form's", "target"),
        tuple(row for size in cases for ema in emas[size] for row in _rows(size, ema, quick)),
    )


def _rows(size: Size, ema: float, quick: bool) -> list[tuple[Cell, ...]]:
    names = (OURS, BATCH_GRAD) if quick else (OURS, EXTENSION, BATCH_GRAD, VMAP)
    rounds = [{name: _in_fresh_process(name, size, ema) for name in names} for _ in range(1 if quick else 3)]
    rounds *= 2 if quick else 1
    rows = list[tuple[Cell, ...]]()
    for name in names:
        peak = Spread(*quartiles([each[name] / _MIB for each in rounds]), 1)
        ratio = Spread(*quartiles([each[name] / max(each[OURS], 1) for each in rounds]), 1)
        judged = None
        if size == penalty.LARGEST and name == BATCH_GRAD:
            judged = Verdict(ratio.median, _TARGET, at_least=True)
        rows.append((str(size), f"{ema:g}", name, peak, None if name == OURS else ratio, judged))
    return rows


def _in_fresh_process(way: str, size: Size, ema: float) -> int:
    numbers = [str(n) for n in (size.domains, size.samples, size.features, size.classes, ema)]
    command = [sys.executable, "-m", "benchmarks.memory", way, *numbers]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


def _extra_bytes(step: Callable[[], object]) -> int:
    if device().type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    # Writing 5 sets the peak back to what is resident now.
    _PEAK_RESET.write_text("5")
    before = _resident("VmRSS")
    step()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(kibibytes)


def _measure(way: str, numbers: list[str]) -> int:
    *axes, ema = numbers
    # Loads libraries and starts threads, which are no part of a step.
    ways(make_problem(_WARM_UP, float(ema), device()))[way]()
    step = ways(make_problem(Size(*map(int, axes)), float(ema), device()))[way]
    return _extra_bytes(step)


if __name__ == "__main__":
    print(_measure(sys.argv[1], sys.argv[2:]))
