"""Small families with every kind of field a configuration can have, and a sound table of them to spoil."""

from pathlib import Path
from typing import Any, Literal, Protocol

import attrs
import pytest
from attrs import field, frozen

from fishr.configuration.families import Family
from fishr.configuration.problems import ConfigurationError, Problem
from fishr.configuration.structure import structure
from fishr.errors import InputError


class Rule(Protocol):
    def __call__(self, step: int) -> float: ...


class Cost(Protocol):
    def init(self, problem: object) -> object: ...


class Data(Protocol):
    def load(self) -> object: ...


@frozen
class Fixed:
    value: float = field(validator=attrs.validators.ge(0))

    def __call__(self, step: int) -> float:
        return self.value


@frozen
class Jump:
    at: int
    before: float
    after: float

    def __call__(self, step: int) -> float:
        return self.before if step < self.at else self.after


@frozen
class Variance:
    ema: float = field(default=0.0)
    over: Literal["mean", "sum"] = "mean"
    unbiased: bool = False

    def init(self, problem: object) -> object:
        return ()

    @ema.validator
    def _check_ema(self, attribute: object, value: float) -> None:
        if not 0 <= value < 1:
            raise InputError(f"ema: got {value}, expected a number from 0 up to 1")


@frozen
class Weighted:
    penalty: Cost
    schedule: Rule

    def init(self, problem: object) -> object:
        return ()


@frozen(init=False)
class Sum:
    terms: dict[str, Cost]

    def __init__(self, **terms: Cost) -> None:
        if "" in terms:
            raise InputError("a term needs a name")
        self.__attrs_init__(terms)

    def init(self, problem: object) -> object:
        return ()


@frozen
class Digits:
    flips: tuple[float, float] = (0.1, 0.2)
    folder: Path | None = None

    def load(self) -> object:
        return ()


@frozen
class Files:
    path: Path
    names: tuple[str, ...] = ()

    def load(self) -> object:
        return ()


@frozen
class Net:
    widths: tuple[int, ...] = (390, 390)


@frozen
class Goal:
    cost: Sum = field(factory=Sum)
    l2: float = field(default=0.0, validator=attrs.validators.ge(0))
    fresh_at: int | None = None


@frozen
class Trial:
    name: str
    data: Data
    net: Net
    goal: Goal
    steps: int = field(validator=attrs.validators.gt(0))
    rules: tuple[Rule, ...] = ()
    limits: dict[str, int] = field(factory=dict)
    size: int | Literal["full"] = "full"
    verbose: bool = False


FAMILIES = (
    Family(Cost, (__name__,)),
    Family(Data, (__name__,)),
    Family(Rule, (__name__,), number="Fixed"),
)


def table(**changes: Any) -> dict[str, Any]:
    """Return a sound table of a Trial with some values changed, by paths with __ between the keys."""
    sound: dict[str, Any] = {
        "name": "first",
        "data": {"kind": "Digits", "flips": [0.1, 0.2]},
        "net": {"widths": [8, 8]},
        "goal": {
            "l2": 0.5,
            "cost": {
                "main": {
                    "kind": "Weighted",
                    "penalty": {"kind": "Variance", "ema": 0.95},
                    "schedule": {"kind": "Jump", "at": 190, "before": 1.0, "after": 90.0},
                }
            },
        },
        "steps": 300,
    }
    for path, value in changes.items():
        *above, key = path.split("__")
        inner = sound
        for step in above:
            inner = inner[step]
        if value is DELETED:
            del inner[key]
        else:
            inner[key] = value
    return sound


DELETED = object()
MAIN = "goal__cost__main__"


def read(**changes: Any) -> Trial:
    return structure(table(**changes), Trial, families=FAMILIES)


def problems(**changes: Any) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read(**changes)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.problems
