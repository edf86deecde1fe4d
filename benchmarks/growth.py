"""How the penalty's time grows with samples, domains, classes and features: exponents, fitted on a log-log scale."""

from math import log

from attrs import asdict

from benchmarks.machine import Times, device, interleaved, quartiles
from benchmarks.table import Cell, Spread, Table, Verdict
from benchmarks.ways import OURS, Size, make_problem, ways

# Large enough that arithmetic, not the calls themselves, takes the time at the start of each axis.
_FROM, _QUICK = Size(4, 64, 1024, 128), Size(2, 8, 32, 8)
_FACTORS = (1, 2, 4, 8, 16)
# An exponent of 1 is linear; the rest is for noise, and for what no longer fits a cache.
_LINEAR, _TOLERANCE = 1.0, 0.1


def table(quick: bool) -> Table:
    """The exponent of each axis, and the times that it was fitted to."""
    start, factors = (_QUICK, _FACTORS[:2]) if quick else (_FROM, _FACTORS)
    spans = f"{factors[0]} to {factors[-1]} times"
    return Table(
        f"Growth of the penalty's time, forward and backward, from {start} with {spans} as many of one thing; "
        f"time ∝ number^exponent, at most {_LINEAR:g} + {_TOLERANCE:g} for noise and caches; [quartiles]",
        ("of", "exponent", *(f"ms at ×{factor}" for factor in factors), "target"),
        tuple(_row(axis, start, factors, quick) for axis in asdict(start)),
    )


def _row(axis: str, start: Size, factors: tuple[int, ...], quick: bool) -> tuple[Cell, ...]:
    names = {f"×{factor}": Size(**asdict(start) | {axis: factor * getattr(start, axis)}) for factor in factors}
    calls = {name: ways(make_problem(size, 0.0, device()))[OURS] for name, size in names.items()}
    times = interleaved(calls, rounds=7, quick=quick)
    exponent = Spread(*quartiles(exponents(times, factors)), 3)
    judged = None if quick else Verdict(exponent.median, _LINEAR + _TOLERANCE, at_least=False)
    return axis, exponent, *(times.milliseconds(name) for name in names), judged


def exponents(times: Times, factors: tuple[int, ...]) -> list[float]:
    """The slope of log time over log factor by least squares, of each round."""
    x = [log(factor) for factor in factors]
    center = sum(x) / len(x)
    square = sum((value - center) ** 2 for value in x)
    turns = zip(*times.seconds.values(), strict=True)
    return [sum((value - center) * log(t) for value, t in zip(x, turn, strict=True)) / square for turn in turns]
