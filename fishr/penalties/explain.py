"""Explain what each term of a penalty does at a step, by evaluating it once."""

from typing import Any

import torch
from attrs import frozen
from tabulate import tabulate
from torch import Tensor, nn

from fishr.observation import Observation, observe
from fishr.penalties.combinators import Total, has_memory, weight_at
from fishr.penalties.penalty import Penalty, check_penalty, problem_of
from fishr.ranks import ALONE
from fishr.types import DomainBatch, Problem

# Of an observation, what is no quantity of the batch.
_SETTINGS = (
    "batch",
    "head",
    "loss",
    "route",
    "closed_form",
    "linear",
    "ranks",
    "layers",
    "layout",
    "module",
    "present",
    "weights",
    "generator",
)


@frozen
class TermExplanation:
    """One term of a penalty at a step.

    Args:
        name: of the term.
        weight: at the step.
        reads: quantities of the observation that it reads directly.
        graph: whether its value carries gradient.
        state: numbers that it remembers from step to step.
    """

    name: str
    weight: float
    reads: tuple[str, ...]
    graph: bool
    state: int


@frozen
class Explanation:
    """An explanation of each term at a step; prints as a table."""

    step: int
    terms: tuple[TermExplanation, ...]

    def __str__(self) -> str:
        rows = [
            (t.name, f"{t.weight:.6g}", ", ".join(t.reads) or "nothing", "yes" if t.graph else "no", t.state or "none")
            for t in self.terms
        ]
        headers = ("term", f"weight at step {self.step}", "reads", "graph kept", "numbers remembered")
        return tabulate(rows, headers, disable_numparse=True)


class _Reader:
    """Proxy of an observation that records which quantities are read directly."""

    def __init__(self, seen: Observation, reads: list[str]) -> None:
        self._seen = seen
        self._reads = reads

    def __getattr__(self, name: str) -> Any:
        if name == "detached":
            return lambda: _Reader(self._seen.detached(), self._reads)
        if name == "own":
            return _Reader(self._seen.own, self._reads)
        read = name.removeprefix("own_")
        if read not in (*_SETTINGS, *self._reads):
            self._reads.append(read)
        return getattr(self._seen, name)


def explain(penalty: Penalty, step: int = 0, seen: Observation | None = None) -> Explanation:
    """Return what each term of a penalty weighs and reads at a step, and whether it keeps a graph and a state.

    Each term runs once from its first state; nothing changes.

    Args:
        seen: the observation; by default of random data of two domains with a linear head.

    Example:
        >>> from fishr.penalties.combinators import Scaled
        >>> from fishr.penalties.fishr import Fishr
        >>> from fishr.penalties.schedules import StepSchedule
        >>> print(explain(Total(fishr=Scaled(Fishr(ema=0.9), StepSchedule(at=10, before=0.0, after=5.0)))))
        term    weight at step 0    reads                    graph kept    numbers remembered
        ------  ------------------  -----------------------  ------------  --------------------
        fishr   0                   factors, domains, sizes  no            21
    """
    check_penalty("explain", penalty)
    seen = seen or _example()
    problem = problem_of(seen)
    terms = penalty.terms if isinstance(penalty, Total) else {type(penalty).__name__: penalty}
    return Explanation(step, tuple(_explain_term(name, term, step, seen, problem) for name, term in terms.items()))


def _explain_term(name: str, term: Penalty, step: int, seen: Observation, problem: Problem) -> TermExplanation:
    reads, state = list[str](), term.init(problem)
    value, _ = term(_Reader(seen, reads), state, step)  # pyright: ignore[reportArgumentType]
    return TermExplanation(name, weight_at(term, step), tuple(reads), value.requires_grad, _numbers(state))


def _numbers(state: Any) -> int:
    if isinstance(state, Tensor):
        return state.numel()
    if hasattr(state, "__attrs_attrs__"):
        return sum(_numbers(getattr(state, a.name)) for a in state.__attrs_attrs__)
    if isinstance(state, dict):
        return sum(map(_numbers, state.values()))
    if isinstance(state, tuple | list):
        return sum(map(_numbers, state))
    return int(has_memory(state))


def _example() -> Observation:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 4, generator=generator)
    batch = DomainBatch(inputs, torch.tensor([0, 1] * 4), sizes=(4, 4))
    return observe(nn.Identity(), nn.Linear(4, 2), batch, ranks=ALONE, seed=0)
