"""Headline numbers of an analysis, comparable between runs."""

import math

import torch
from attrs import frozen
from torch import Tensor

from fishr.analysis.report import Analysis
from fishr.diagnostics.registry import diagnostics

_OVER: dict[tuple[str, ...], str] = {
    (): "",
    ("domain",): ", mean over domains",
    ("domain", "domain"): ", mean over pairs",
}


@frozen
class Headline:
    """One number of an analysis."""

    title: str
    value: float  # NaN where it is not defined
    error: float | None  # absolute, estimated; None: exact up to rounding
    unit: str  # "1": a pure number
    route: str


def headlines(analysis: Analysis) -> dict[str, Headline]:
    """Return the headline numbers of the training domains, by the name of the diagnostic that declares them.

    A number of each domain is averaged over domains, one of pairs over pairs of different domains; what needs two
    training domains is missing where there is one. Distances and cosines do not depend on the scale of the loss;
    inconsistency does.

    Example:
        >>> from fishr.analysis import Subject, analyze
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> a, b = (Domain(n, torch.randn(8, 3), torch.arange(8) % 2) for n in "ab")
        >>> splits = ("training", "training")
        >>> found = analyze(Subject.from_domains("mine", torch.nn.Linear(3, 2), CrossEntropy(), (a, b), splits))
        >>> headlines(found)["gradient_cosines"].title
        'cosine of the gradients, mean over pairs'
    """
    found, trained = dict[str, Headline](), len(analysis.training)
    for name, entry in diagnostics("head").items():
        quantity = analysis.quantities.get(name)
        if entry.headline is None or quantity is None or (quantity.axes == ("domain", "domain") and trained < 2):
            continue
        value, error = _reduced(quantity.value, quantity.axes, trained), None
        if quantity.error is not None:
            error = _reduced(quantity.error.expand_as(quantity.value), quantity.axes, trained)
        found[name] = Headline(entry.headline + _OVER[quantity.axes], value, error, quantity.unit, quantity.route)
    return found


def ratio(first: Headline, second: Headline) -> float:
    """Return first / second; NaN unless both are positive.

    Example:
        >>> ratio(Headline("", 3.0, None, "1", ""), Headline("", 1.5, None, "1", ""))
        2.0
    """
    return first.value / second.value if first.value > 0 and second.value > 0 else math.nan


def _reduced(value: Tensor, axes: tuple[str, ...], trained: int) -> float:
    for index, axis in enumerate(axes):
        if axis == "domain":
            value = value.narrow(index, 0, trained)
    if axes == ("domain", "domain"):
        value = value[~torch.eye(len(value), dtype=torch.bool, device=value.device)]
    return float(value.mean())
