"""Where it is measured, and the fair way to time several things there."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from statistics import median, quantiles

import torch
from attrs import frozen

from benchmarks.table import Spread

# A turn shorter than this is repeated: training repeats its step, so neither the clock nor the caches and pages that
# the candidate before left behind are to decide.
_TURN_SECONDS = 0.3
_LONGEST_TURN = 50
# Bytes of a tensor that no cache holds, and how often it is copied.
_FAR_BYTES, _COPIES = 1 << 28, 5


def device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@frozen
class Machine:
    """What torch and the machine are, and whether the machine is free.

    Args:
        torch: its version.
        device: its name.
        threads: of torch.
        cores: of the machine.
        pages: torch's setting of huge pages.
        load: processes at work in the minute before.
    """

    torch: str
    device: str
    threads: int
    cores: int
    pages: str
    load: float

    def __str__(self) -> str:
        line = (
            f"torch {self.torch}, {self.device}, {self.threads} threads of {self.cores} cores, "
            f"THP_MEM_ALLOC_ENABLE={self.pages}, load {self.load:.1f}"
        )
        # Threads that wait for each other on taken cores slow small operations down far more than large ones.
        busy = self.load > self.cores / 2
        return f"{line}\nOther processes are at work: measure again on an idle machine." if busy else line


def this_machine() -> Machine:
    """As it is now."""
    return Machine(
        torch.__version__,
        torch.cuda.get_device_name() if device().type == "cuda" else f"CPU {_processor()}",
        torch.get_num_threads(),
        os.cpu_count() or 1,
        os.environ.get("THP_MEM_ALLOC_ENABLE", "unset"),
        os.getloadavg()[0],
    )


def describe() -> str:
    """The machine, in a line or two."""
    return str(this_machine())


def _processor() -> str:
    return platform.processor() or platform.machine()


@frozen
class Times:
    """Seconds a call of each candidate, one number a round; the candidates took turns within each round.

    Args:
        seconds: rounds by candidate.
    """

    seconds: Mapping[str, tuple[float, ...]]

    def milliseconds(self, name: str, digits: int = 2) -> Spread:
        """Of a call."""
        return Spread(*quartiles([1e3 * each for each in self.seconds[name]]), digits)

    def median(self, name: str) -> float:
        """Seconds."""
        return median(self.seconds[name])

    def ratio(self, name: str, base: str) -> tuple[float, float, float]:
        """How many times longer ``name`` takes than ``base``: median over rounds, and the quartiles around it."""
        return quartiles([a / b for a, b in zip(self.seconds[name], self.seconds[base], strict=True)])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The median of at least two values, and the quartiles around it."""
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return middle, low, high


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int, quick: bool = False) -> Times:
    """Time candidates in turns, A B C A B C …, after a warm-up of each.

    Args:
        candidates: what to call, by name.
        rounds: turns of each, at least 2.
        quick: a single call of each, which counts as two rounds: does it run, not how fast.

    Returns:
        Seconds a call.
    """
    calls = {name: 1 if quick else _calls_a_turn(call) for name, call in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(1 if quick else rounds):
        for name, call in candidates.items():
            seconds[name].append(_turn(call, calls[name]))
    return Times({name: tuple(values) * (2 if quick else 1) for name, values in seconds.items()})


def bandwidth() -> float:
    """Bytes a second that a copy reads and writes, of memory that no cache holds."""
    source = torch.ones(_FAR_BYTES // 4, device=device())
    target = torch.empty_like(source)
    seconds = [_turn(lambda: target.copy_(source), 1) for _ in range(_COPIES)]
    return 2 * _FAR_BYTES / min(seconds)


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
