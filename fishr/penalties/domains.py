"""A refusal that penalties which compare domains share."""

from fishr.errors import InputError
from fishr.types import Problem


def require_two_domains(name: str, problem: Problem) -> None:
    """Refuse a single training domain: a penalty that compares domains would be zero for ever, and silently so.

    Example:
        >>> from torch import nn
        >>> require_two_domains("Fishr", Problem.of(nn.Linear(2, 2), domains=2))
    """
    if problem.domains < 2:
        raise InputError(
            f"{name}: got {problem.domains} training domain, expected at least 2 to compare; "
            "with one domain train without the penalty"
        )
