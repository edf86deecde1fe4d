"""Schedules against their formulas and at their boundaries."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.penalties import Constant, CosineSchedule, Joined, LinearSchedule, StepSchedule

NUMBERS = st.floats(-1e6, 1e6)
LENGTHS = st.integers(1, 10_000)
STEPS = st.integers(0, 20_000)


@given(NUMBERS, STEPS)
def test_a_constant_is_constant(value: float, step: int) -> None:
    assert Constant(value)(step) == value


@given(st.integers(0, 10_000), NUMBERS, NUMBERS)
def test_a_step_is_at_its_step(at: int, before: float, after: float) -> None:
    schedule = StepSchedule(at, before, after)
    assert schedule(at) == schedule(at + 10**6) == after
    assert at == 0 or schedule(at - 1) == schedule(0) == before


@given(NUMBERS, NUMBERS, LENGTHS, STEPS)
def test_ramps_begin_end_and_stay_in_range(start: float, end: float, steps: int, step: int) -> None:
    low, high = min(start, end), max(start, end)
    slack = 1e-12 * max(abs(low), abs(high))
    for schedule in (LinearSchedule(start, end, steps), CosineSchedule(start, end, steps)):
        assert schedule(0) == start
        assert schedule(steps) == schedule(steps + 1) == schedule(10**9) == end
        assert low - slack <= schedule(step) <= high + slack


@given(NUMBERS, NUMBERS, LENGTHS, STEPS)
def test_ramps_are_their_formulas(start: float, end: float, steps: int, step: int) -> None:
    done = min(step, steps) / steps
    linear, cosine = start + (end - start) * done, end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
    assert LinearSchedule(start, end, steps)(step) == pytest.approx(linear, rel=1e-9, abs=1e-6)
    assert CosineSchedule(start, end, steps)(step) == pytest.approx(cosine, rel=1e-9, abs=1e-6)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=4), STEPS)
def test_each_of_joined_schedules_counts_from_its_own_beginning(lengths: list[int], step: int) -> None:
    boundaries = tuple(sum(lengths[: i + 1]) for i in range(len(lengths)))
    ramps = tuple(LinearSchedule(10.0 * i, 10.0 * i + 5, 777) for i in range(len(lengths) + 1))
    joined = Joined(ramps, boundaries)
    index = max((i + 1 for i, b in enumerate(boundaries) if step >= b), default=0)
    assert joined(step) == ramps[index](step - (0, *boundaries)[index])
    for i, boundary in enumerate(boundaries):
        assert joined(boundary) == ramps[i + 1](0)


@given(NUMBERS, NUMBERS, LENGTHS, STEPS)
def test_a_ramp_that_is_joined_to_its_own_end_has_no_jump(start: float, end: float, steps: int, step: int) -> None:
    assume(step != steps)
    ramp = LinearSchedule(start, end, steps)
    assert Joined((ramp, Constant(end)), (steps,))(step) == ramp(step)


def test_one_schedule_alone_joins_to_itself() -> None:
    assert Joined((Constant(2.0),), ())(5) == 2.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LinearSchedule(0.0, 1.0, 0), "steps: got 0"),
        (lambda: CosineSchedule(0.0, 1.0, -1), "steps: got -1"),
        (lambda: Joined((Constant(1.0), Constant(2.0)), ()), "boundaries: got 0 for 2 schedules"),
        (lambda: Joined((), ()), "boundaries: got 0 for 0 schedules"),
        (lambda: Joined((Constant(1.0),) * 3, (5, 5)), r"boundaries: got \(5, 5\), expected increasing"),
        (lambda: Joined((Constant(1.0),) * 3, (5, 3)), r"boundaries: got \(5, 3\), expected increasing"),
        (lambda: Joined((Constant(1.0),) * 2, (0,)), r"boundaries: got \(0,\), expected increasing steps"),
    ],
)
def test_what_cannot_be_is_refused(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]
