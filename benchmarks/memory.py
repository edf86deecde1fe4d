"""Peak memory of one penalty step above what was there before it, each step in a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate

from benchmarks import penalty
from benchmarks.machine import device, verdict
from benchmarks.ways import BATCH_GRAD, OURS, Size, make_problem, ways

_TARGET = 13.0
_WARM_UP = Size(2, 4, 8, 3)
_MIB = 2**20
_PEAK_RESET = Path("/proc/self/clear_refs")


def table(quick: bool) -> str:
    """MiB of the closed form and of BatchGrad on the largest head, and their ratio."""
    if device().type == "cpu" and not _PEAK_RESET.exists():
        return "Peak memory on a CPU is read from Linux's /proc, which this system lacks: not measured"
    cases = penalty.QUICK if quick else penalty.CASES
    size, _ = cases[-1]
    rows = [_row(size, ema, quick) for ema in penalty.EMAS]
    return "Peak memory of the same step above the state before it, each in a fresh process\n" + tabulate(
        rows, ("head", "ema", f"{OURS} MiB", f"{BATCH_GRAD} MiB", "ratio", "target"), disable_numparse=True
    )


def _row(size: Size, ema: float, quick: bool) -> list[str]:
    repeats = range(1 if quick else 3)
    pairs = [(_in_fresh_process(OURS, size, ema), _in_fresh_process(BATCH_GRAD, size, ema)) for _ in repeats]
    ours, theirs = (median(column) / _MIB for column in zip(*pairs, strict=True))
    ratio = theirs / ours if ours else float("inf")
    return [
        str(size),
        f"{ema:g}",
        f"{ours:.1f}",
        f"{theirs:.1f}",
        f"{ratio:.1f}×",
        "" if quick else verdict(ratio, _TARGET, at_least=True),
    ]


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
