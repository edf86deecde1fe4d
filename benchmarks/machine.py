"""Where it is measured, and the fair way to time several things there."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from math import ceil
from statistics import median, quantiles

import torch
from attrs import frozen

# A turn shorter than this is repeated: training repeats its step, so neither the clock nor the caches and pages that
# the candidate before left behind are to decide.
_TURN_SECONDS = 0.3
_LONGEST_TURN = 50


def device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe() -> str:
    """What torch and the machine are, and whether the machine is free."""
    where = torch.cuda.get_device_name() if device().type == "cuda" else f"CPU {platform.machine()}"
    pages = os.environ.get("THP_MEM_ALLOC_ENABLE", "unset")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    line = (
        f"torch {torch.__version__}, {where}, {torch.get_num_threads()} threads of {cores} cores, "
        f"THP_MEM_ALLOC_ENABLE={pages}, load {load:.1f}"
    )
    # Threads that wait for each other on taken cores slow small operations down far more than large ones.
    return f"{line}\nOther processes are at work: measure again on an idle machine." if load > cores / 2 else line


@frozen
class Times:
    """Seconds a call of each candidate, one number a round; the candidates took turns within each round.

    Args:
        seconds: rounds by candidate.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def median(self, name: str) -> float:
        """Seconds."""
        return median(self.seconds[name])

    def ratio(self, name: str, base: str) -> tuple[float, float, float]:
        """How many times longer ``name`` takes than ``base``: median over rounds, and the quartiles around it."""
        ratios = [a / b for a, b in zip(self.seconds[name], self.seconds[base], strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive")
        return middle, low, high


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Time candidates in turns, A B C A B C …, after a warm-up of each.

    Args:
        candidates: what to call, by name.
        rounds: turns of each, at least 2.

    Returns:
        Seconds a call.
    """
    calls = {name: _calls_a_turn(call) for name, call in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            seconds[name].append(_turn(call, calls[name]))
    return Times({name: tuple(values) for name, values in seconds.items()})


def _calls_a_turn(call: Callable[[], object]) -> int:
    _turn(call, 1)
    return min(_LONGEST_TURN, ceil(_TURN_SECONDS / _turn(call, 1)))


def _turn(call: Callable[[], object], calls: int) -> float:
    _synchronise()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    _synchronise()
    return (time.perf_counter() - start) / calls


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def verdict(value: float, target: float, at_least: bool) -> str:
    """The target and whether it was met."""
    met = value >= target if at_least else value <= target
    return f"{'≥' if at_least else '≤'} {target:g}: {'met' if met else 'MISSED'}"
