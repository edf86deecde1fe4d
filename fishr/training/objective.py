"""The objective of a step: the risk, weight decay in the loss, and named penalties."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from attrs import field, frozen
from attrs.validators import optional
from torch import Tensor

from fishr.checks import number, whole
from fishr.errors import InputError
from fishr.observation import Observation
from fishr.penalties.combinators import Term, Total, has_memory, initial_states, weight_at
from fishr.penalties.erm import ERM
from fishr.penalties.penalty import Risk, compares_domains, value_and_state
from fishr.types import Problem

# All of an objective, or for a descent that measures domains one by one: all but the penalties that compare domains,
# and these penalties alone.
Part = Literal["whole", "alone", "between"]


@frozen(eq=False)
class Loss:
    """The parts of one step's loss, before any rescaling but for ``total``."""

    total: Tensor  # minimized, 0-dim, with its graph
    risk: Tensor
    l2: Tensor  # l2 · Σ‖w‖²
    terms: dict[str, Term]  # weighted value and weight of each penalty
    rests: bool = False  # whether the network stays as it is in this step


def _names(objective: object, attribute: object, penalty: Total) -> None:
    for name in ("risk", "l2", "loss"):
        if name in penalty.terms:
            raise InputError(f"penalty: got a term named {name}, which is another part of the loss; rename it")


def _steps(objective: object, attribute: object, value: int | tuple[int, ...]) -> None:
    for step in value if isinstance(value, tuple) else (value,):
        whole(0)(objective, attribute, step)


@frozen
class Objective:
    """loss = risk + l2 · Σ‖w‖² + Σ penalties, divided by max(1, largest weight) with ``rescale``.

    A risk with a state whose value has no graph is training parameters of its own: the network rests in this step,
    while the states of penalties go on.

    Args:
        risk: the training error; ``ERM`` averages it over domains or samples.
        penalty: the named penalties.
        l2: factor of the squared norm of all parameters that are trained.
        rescale: divide the whole loss by the largest current weight once that exceeds 1, so that a large weight
            shrinks the other terms instead of growing the gradient.
        fresh_optimizer_at: the step, or the steps, before whose update the optimizer's state is reset; None: never.

    Raises:
        InputError: a number outside its range, or a penalty named risk, l2 or loss.

    Example:
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> batch = DomainBatch(torch.zeros(4, 3), torch.tensor([0, 1, 0, 1]), sizes=(2, 2))
        >>> head = torch.nn.Linear(3, 2)
        >>> objective = Objective(l2=0.5)
        >>> state = objective.init(Problem.of(head, domains=2))
        >>> seen = observe(torch.nn.Identity(), head, batch)
        >>> loss, state = objective.evaluate(seen, (torch.tensor([1.0, 2.0]),), state, step=0)
        >>> loss.l2
        tensor(2.5000)
    """

    risk: Risk = field(factory=ERM)
    penalty: Total = field(factory=Total, validator=_names)
    l2: float = field(default=0.0, validator=number())
    rescale: bool = False
    fresh_optimizer_at: int | tuple[int, ...] | None = field(default=None, validator=optional(_steps))

    def init(self, problem: Problem) -> dict[str, Any]:
        """Return the penalties' state before the first step; a risk without memory has no part in it."""
        states = initial_states({**self.penalty.terms, "risk": self.risk}, problem)
        # The terms of a total are read by name, even if none of them has a memory.
        kept = isinstance(states["risk"], dict) or has_memory(states["risk"])
        return states if kept else {name: states[name] for name in self.penalty.terms}

    @property
    def between(self) -> tuple[str, ...]:
        """Return the names of the penalties that compare domains."""
        return tuple(name for name, term in self.penalty.terms.items() if compares_domains(term))

    def evaluate(
        self, seen: Observation, parameters: Iterable[Tensor], state: Any, step: int, part: Part = "whole"
    ) -> tuple[Loss, Any]:
        """Return the loss of one batch at a step, of trained parameters, and the penalties' next state."""
        if part == "between":
            risk = torch.zeros((), device=seen.batch.labels.device)
        else:
            risk, remembered = value_and_state(self.risk, self.risk(seen, state.get("risk", ()), step))
            state = state | {"risk": remembered} if "risk" in state else state
        chosen = self.penalty
        if part != "whole":
            names = [name for name in chosen.terms if (name in self.between) == (part == "between")]
            chosen = Total(**{name: chosen.terms[name] for name in names})
        terms, states = chosen.evaluate(seen, state, step)
        l2 = risk.new_zeros(())
        if self.l2 and part != "between":
            l2 = self.l2 * torch.stack([p.square().sum() for p in parameters]).sum()
        total = risk + l2
        for term in terms.values():
            total = total + term.value
        if self.rescale:
            total = total / self.divisor(weight_at(term, step) for term in self.penalty.terms.values())
        rests = not total.requires_grad if part == "between" else "risk" in state and not risk.requires_grad
        return Loss(total, risk, l2, terms, rests), state | states

    def divisor(self, weights: Iterable[float]) -> float:
        """Return the divisor of the whole loss when its terms have such weights."""
        return max([1.0, *weights]) if self.rescale else 1.0
