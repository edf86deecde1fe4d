"""How many training domains a penalty needs, which is the penalty's own to say."""

from fishr.errors import InputError
from fishr.types import Problem


def least_domains(penalty: object) -> int:
    """The fewest training domains that a penalty is defined on: its ``least_domains``, or 1 if it has none.

    Example:
        >>> from fishr.penalties import IRM, Scaled, VREx
        >>> least_domains(IRM()), least_domains(VREx()), least_domains(Scaled(VREx(), 10.0))
        (1, 2, 2)
    """
    return getattr(penalty, "least_domains", 1)


def require_domains(name: str, penalty: object, problem: Problem) -> None:
    """Refuse fewer domains than a penalty needs: one that compares domains would silently stay zero.

    Example:
        >>> from torch import nn
        >>> from fishr.penalties import VREx
        >>> require_domains("rex", VREx(), Problem.of(nn.Linear(2, 2), domains=2))
    """
    least = least_domains(penalty)
    if problem.domains < least:
        domains = "domain" if problem.domains == 1 else "domains"
        raise InputError(
            f"{name}: got {problem.domains} training {domains}, expected at least {least} to compare; "
            "train on more domains, or without the penalty"
        )
