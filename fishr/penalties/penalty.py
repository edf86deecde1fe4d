"""The penalty protocol."""

from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor

from fishr.errors import InputError
from fishr.observation import Observation
from fishr.row_checks import kind
from fishr.types import HEAD, Problem


@runtime_checkable
class Penalty(Protocol):
    """A term of the loss, possibly with memory.

    ``init(problem)`` returns the first state; ``penalty(seen, state, step)`` returns the term's value and the next
    state, and changes nothing. A state is any tree of tensors without a graph, numbers, strings, None, tuples, lists,
    dicts with string keys and frozen attrs records; training refuses anything else, such as a module. A penalty
    without memory has the state ``()``.

    A penalty that compares domains has the attribute ``least_domains = 2``: training refuses it on fewer domains,
    ``Scaled`` and ``Total`` refuse a batch with samples of fewer, and a sweep trains jobs of fewer domains without it.
    The default is 1. One that compares the domains that it finds, but is defined on a single one too, has
    ``compares_domains = True``.

    Quantities of domains have a row for each domain present in the batch. A state that has a row for each of all
    domains is read and written at the rows ``seen.present``.

    Example:
        >>> from attrs import frozen
        >>> @frozen
        ... class ConfidencePenalty:
        ...     def init(self, problem):
        ...         return ()
        ...     def __call__(self, seen, state, step):
        ...         return seen.logits.square().mean(), state
        >>> isinstance(ConfidencePenalty(), Penalty)
        True

    Source:
        The pair of pure functions is optax's convention for gradient transformations.
    """

    def init(self, problem: Problem) -> Any:
        """Return the state before the first step."""
        ...

    def __call__(self, seen: Observation, state: Any, step: int) -> tuple[Tensor, Any]:
        """Return the term's value (0-dim) and the state after this step."""
        ...


class Memoryless:
    """The ``init`` of penalties without memory."""

    __slots__ = ()

    def init(self, problem: Problem) -> tuple[()]:
        """Return no state; refuse fewer domains than the penalty is defined on."""
        problem.require_domains(type(self).__name__, least_domains(self))
        return ()


class Risk(Penalty, Protocol):
    """The training error that an objective minimizes: ``ERM`` or any other penalty in its place.

    Example:
        >>> from fishr.penalties import ERM
        >>> own: Risk = ERM(over="samples")
    """


def check_penalty(name: str, value: object) -> None:
    """Refuse what is no penalty, such as a plain function."""
    if not isinstance(value, Penalty) or isinstance(value, type):
        raise InputError(
            f"{name}: got {value!r}, expected a penalty (with init and a call); wrap a function in Stateless"
        )


def least_domains(penalty: object) -> int:
    """Return the fewest training domains that a penalty is defined on."""
    return getattr(penalty, "least_domains", 1)


def compares_domains(penalty: object) -> bool:
    """Return whether a penalty of several domains is not a mean of those of each domain alone."""
    return least_domains(penalty) > 1 or getattr(penalty, "compares_domains", False)


def require_present(seen: Observation, name: str, least: int) -> None:
    """Refuse a batch with samples of fewer domains than a penalty compares; it would silently be zero."""
    if len(seen.present) < least:
        raise InputError(
            f"{name}: got a batch with samples of {len(seen.present)} of {seen.batch.domains} domains, expected at "
            f"least {least} to compare; draw samples of more domains into each batch, or skip the penalty in this step"
        )


def value_and_state(penalty: Penalty, found: Any) -> tuple[Tensor, Any]:
    """Return the value and the next state that a penalty's call returned; refuse a result of another form."""
    pair = isinstance(found, tuple) and len(cast(tuple[Any, ...], found)) == 2
    if not pair or not isinstance(found[0], Tensor):
        got = f"{kind(found[0])} as the value" if pair else kind(found)
        raise InputError(
            f"{type(penalty).__name__}: got {got} from its call, expected a tensor of one number and the next state; "
            "return value, state"
        )
    return found


def problem_of(seen: Observation, seed: int = 0) -> Problem:
    """Return the problem of an observation's modules, all domains of its batch included."""
    layers = None if seen.layers == HEAD else seen.layers
    features, outputs = seen.features.shape[-1], seen.logits.shape[-1]
    return Problem.of(seen.module, seen.batch.domains, layers, features, outputs, seed)
