"""Combinators: scale a penalty, sum several by name, or wrap a plain function."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from attrs import field, frozen
from torch import Tensor

from fishr.compilation import traceable
from fishr.errors import InputError
from fishr.observation import Observation
from fishr.penalties.penalty import (
    Memoryless,
    Penalty,
    check_penalty,
    compares_domains,
    least_domains,
    require_present,
    value_and_state,
)
from fishr.penalties.schedules import Schedule, as_schedule
from fishr.types import Problem


def has_memory(state: Any) -> bool:
    """Return whether a state holds anything that the next step depends on."""
    if isinstance(state, Mapping):
        return any(map(has_memory, state.values()))
    if isinstance(state, tuple | list):
        return any(map(has_memory, state))
    return state is not None


@frozen
class Stateless(Memoryless):
    """A penalty from a plain function of the observation.

    Args:
        function: observation to 0-dim tensor; an attribute ``least_domains`` of it counts as the penalty's.

    Example:
        >>> Stateless(lambda seen: seen.logits.square().mean()).init(Problem.of(torch.nn.Linear(2, 2), domains=1))
        ()
    """

    function: Callable[[Observation], Tensor]

    @property
    def least_domains(self) -> int:
        return least_domains(self.function)

    def __call__(self, seen: Observation, state: tuple[()], step: int) -> tuple[Tensor, tuple[()]]:
        """Return the function's value."""
        return self.function(seen), state


@frozen
class Scaled:
    """schedule(step) · penalty.

    While the weight is 0 nothing is computed, unless the penalty has state to update: then it runs without a graph,
    so that a moving average covers the warm-up at the cost of a forward pass. Where it is computed, a batch with
    samples of fewer domains than the penalty compares is refused.

    Args:
        schedule: weight as a function of the step, or a number.
        penalty: the penalty that it multiplies.

    Raises:
        InputError: no penalty, or a schedule that is neither a finite number nor a function; when called, samples of
            fewer domains than the penalty compares.

    Example:
        >>> from fishr.penalties.fishr import Fishr
        >>> from fishr.penalties.schedules import StepSchedule
        >>> Scaled(Fishr(ema=0.95), StepSchedule(at=1500, before=0.0, after=1000.0)).schedule(1500)
        1000.0
        >>> Scaled(Fishr(), 10).schedule
        Constant(value=10.0)
    """

    penalty: Penalty = field(validator=lambda _, attribute, value: check_penalty(attribute.name, value))
    schedule: Schedule = field(converter=as_schedule)

    @property
    def least_domains(self) -> int:
        return least_domains(self.penalty)

    @property
    def compares_domains(self) -> bool:
        return compares_domains(self.penalty)

    def init(self, problem: Problem) -> Any:
        """Return the penalty's state; refuse fewer domains than it needs."""
        problem.require_domains(type(self.penalty).__name__, self.least_domains)
        return self.penalty.init(problem)

    def __call__(self, seen: Observation, state: Any, step: int) -> tuple[Tensor, Any]:
        """Return the weighted value and the penalty's next state."""
        weight = self.schedule(step)
        if weight or has_memory(state):
            require_present(seen, type(self.penalty).__name__, self.least_domains)
        if weight:
            value, state = value_and_state(self.penalty, self.penalty(seen, state, step))
            return weight * value, state
        if has_memory(state):
            # Outside no_grad: features and logits are shared with other terms, which need their graph.
            view = seen.detached()
            with torch.no_grad():
                _, state = value_and_state(self.penalty, self.penalty(view, state, step))
        return torch.zeros((), device=seen.batch.labels.device), state


@traceable
@frozen(eq=False)
class Term:
    """The value of one named term at a step."""

    value: Tensor
    weight: float


@frozen(init=False)
class Total:
    """Sum of named penalties; the state is a dict by the same names.

    Each term goes over the domains present in the batch; too few for a term are refused by its name.

    Args:
        terms: penalties by name.

    Raises:
        InputError: a term that is not a penalty.

    Example:
        >>> from fishr.penalties.erm import ERM
        >>> from fishr.penalties.vrex import VREx
        >>> both = Total(risk=ERM(), rex=Scaled(VREx(), 10.0))
        >>> both.init(Problem.of(torch.nn.Linear(2, 2), domains=2))
        {'risk': (), 'rex': ()}
    """

    terms: dict[str, Penalty]

    def __init__(self, /, **terms: Penalty) -> None:
        for name, penalty in terms.items():
            check_penalty(name, penalty)
        self.__attrs_init__(terms)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    @property
    def least_domains(self) -> int:
        return max(map(least_domains, self.terms.values()), default=1)

    @property
    def compares_domains(self) -> bool:
        return any(map(compares_domains, self.terms.values()))

    def init(self, problem: Problem) -> dict[str, Any]:
        """Return the terms' states by name; refuse fewer domains than a term needs."""
        return initial_states(self.terms, problem)

    def __call__(self, seen: Observation, state: dict[str, Any], step: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the sum and the terms' next states."""
        terms, state = self.evaluate(seen, state, step)
        zero = torch.zeros((), device=seen.batch.labels.device)
        return sum((term.value for term in terms.values()), zero), state

    def evaluate(self, seen: Observation, state: dict[str, Any], step: int) -> tuple[dict[str, Term], dict[str, Any]]:
        """Return the terms and their next states, both by name; refuse a value that is not 0-dim."""
        terms: dict[str, Term] = {}
        states: dict[str, Any] = {}
        for name, penalty in self.terms.items():
            weight = weight_at(penalty, step)
            if weight or has_memory(state[name]):
                require_present(seen, name, least_domains(penalty))
            value, states[name] = value_and_state(penalty, penalty(seen, state[name], step))
            if value.ndim:
                raise InputError(f"{name}: got a value of shape {tuple(value.shape)}, expected a single number (0-dim)")
            terms[name] = Term(value, weight)
        return terms, states


def initial_states(terms: Mapping[str, Penalty], problem: Problem) -> dict[str, Any]:
    """Return the terms' states before the first step by name; refuse fewer domains than a term needs."""
    for name, penalty in terms.items():
        problem.require_domains(name, getattr(penalty, "least_domains", 1))
    return {name: penalty.init(problem) for name, penalty in terms.items()}


def weight_at(penalty: Penalty, step: int) -> float:
    """Return the weight of a penalty at a step: the product of nested schedules, or 1."""
    return penalty.schedule(step) * weight_at(penalty.penalty, step) if isinstance(penalty, Scaled) else 1.0
