"""Where a Fishr step's time goes, by torch's profiler: the penalty's share, and the operators that take most."""

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import device
from benchmarks.step import OURS, steppers, the_cases
from benchmarks.table import Cell, Number, Table

_BACKWARD = "autograd::engine::evaluate_function: "
_PENALTY = ("_LinearGap", f"{_BACKWARD}_LinearGapBackward")
_STEPS, _OPERATORS = 5, 8


def table(quick: bool) -> Table:
    """Milliseconds a step of its parts and of the operators that take most, alone, without what they call."""
    return Table(
        f"Where a Fishr step's time goes, by torch.profiler over {_STEPS} steps, which it slows down",
        ("batch and model", "part or operator", "calls a step", "ms a step", "share of the step, %"),
        tuple(
            row for case in the_cases(quick) for row in _rows(case.title, steppers(case)[OURS], 1 if quick else _STEPS)
        ),
    )


def _rows(title: str, step: Callable[[], object], steps: int) -> list[tuple[Cell, ...]]:
    step()
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * (device().type == "cuda")]
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
    events: list[Any] = list(profiler.key_averages())
    whole = sum(_own(event) for event in events)
    backward = sum(_with_called(event) for event in events if event.key.startswith(_BACKWARD))
    penalty = sum(_with_called(event) for event in events if event.key in _PENALTY)

    def row(name: str, calls: int | None, microseconds: float) -> tuple[Cell, ...]:
        each = None if calls is None else Number(calls / steps, 0)
        return title, name, each, Number(microseconds / 1e3 / steps, 2), Number(100 * microseconds / whole, 1)

    most = sorted(events, key=_own, reverse=True)[:_OPERATORS]
    return [
        row("everything", None, whole),
        row("all backward passes", None, backward),
        row("the penalty, both ways", None, penalty),
        *(row(event.key, event.count, _own(event)) for event in most),
    ]


def _own(event: Any) -> float:
    return event.self_device_time_total if device().type == "cuda" else event.self_cpu_time_total


def _with_called(event: Any) -> float:
    return event.device_time_total if device().type == "cuda" else event.cpu_time_total
