"""What ``torch.compile`` needs to trace a step: records it can make, lazy fields, and functions it leaves alone."""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Generic, ParamSpec, TypeVar, cast

import torch

P = ParamSpec("P")
T = TypeVar("T")


def traceable(record: type[T]) -> type[T]:
    """Let ``torch.compile`` trace steps that make instances of a frozen attrs class, and return the class.

    For states of one's own penalties in a compiled loop; instances do not change.

    Example:
        >>> from attrs import frozen
        >>> @traceable
        ... @frozen
        ... class Memory:
        ...     total: float
        >>> Memory(2.0)
        Memory(total=2.0)
    """
    # attrs sets fields by the C slot ``object.__setattr__.__get__``, which the compiler does not know.
    record.__init__.__globals__["_cached_setattr_get"] = _setter
    return record


def _setter(record: object) -> partial[None]:
    return partial(object.__setattr__, record)


class lazy(Generic[T]):  # noqa: N801 (a decorator)
    """A field computed on first reading: ``functools.cached_property`` without its lock, which cannot be traced."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, record: Any, owner: type) -> T:
        # Where attribute lookup finds the value from now on.
        value = vars(record)[self.name] = self.compute(record)
        return value


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that ``torch.compile`` calls as it is, with all that it calls."""
    eager: Callable[P, T] | None = None

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal eager
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if eager is None:
            # Here, because it imports the compiler, which takes seconds.
            eager = cast(Callable[P, T], torch.compiler.disable(function))
        return eager(*args, **kwargs)

    return call
