"""The few numbers of an analysis that a person asks for first, and that may be compared between runs."""

import math
from collections.abc import Callable

import torch
from attrs import frozen
from torch import Tensor

from fishr.analysis.report import Analysis


@frozen
class Headline:
    """One number.

    Args:
        title: what it is, for a person.
        value: NaN where it is not defined.
        error: estimate of its absolute error; None where it is exact up to rounding.
        unit: "1" for a pure number.
        route: how it was computed.

    Example:
        >>> Headline("cosine of gradients", 0.9, None, "1", "closed form").value
        0.9
    """

    title: str
    value: float
    error: float | None
    unit: str
    route: str


def headlines(analysis: Analysis) -> dict[str, Headline]:
    """The headline numbers of the training domains, by the name of the quantity that each is taken from.

    Distances and cosines do not depend on the scale of the loss; inconsistency does.

    Args:
        analysis: of any subject.

    Returns:
        In the order of a table; what needs two training domains is missing where there is one.

    Example:
        >>> from fishr.analysis import Subject, analyse
        >>> from fishr.data import Domain
        >>> from fishr.losses import CrossEntropy
        >>> a, b = (Domain(n, torch.randn(8, 3), torch.arange(8) % 2) for n in "ab")
        >>> splits = ("training", "training")
        >>> found = analyse(Subject.from_domains("mine", torch.nn.Linear(3, 2), CrossEntropy(), (a, b), splits))
        >>> headlines(found)["gradient_cosines"].title
        'cosine of the gradients, mean over pairs'
    """
    found = dict[str, Headline]()
    for name, title, reduce in _HEADLINES:
        quantity = analysis.quantities.get(name)
        trained = len(analysis.training)
        if quantity is None or (quantity.axes == ("domain", "domain") and trained < 2):
            continue
        value = reduce(_of_training(quantity.value, quantity.axes, trained))
        error = None
        if quantity.error is not None:
            error = _number(reduce(_of_training(quantity.error.expand_as(quantity.value), quantity.axes, trained)))
        found[name] = Headline(title, _number(value), error, quantity.unit, quantity.route)
    return found


def ratio(first: Headline, second: Headline) -> float:
    """How many times the first is the second; NaN unless both are positive.

    Example:
        >>> ratio(Headline("", 3.0, None, "1", ""), Headline("", 1.5, None, "1", ""))
        2.0
    """
    return first.value / second.value if first.value > 0 and second.value > 0 else math.nan


def _number(value: Tensor) -> float:
    return float(value)


def _of_training(value: Tensor, axes: tuple[str, ...], trained: int) -> Tensor:
    for index, axis in enumerate(axes):
        if axis == "domain":
            value = value.narrow(index, 0, trained)
    return value


def _alone(value: Tensor) -> Tensor:
    return value


def _mean(value: Tensor) -> Tensor:
    return value.mean()


def _mean_of_pairs(value: Tensor) -> Tensor:
    return value[~torch.eye(len(value), dtype=torch.bool, device=value.device)].mean()


_HEADLINES: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    ("variance_distance_scale_free", "distance of gradient variances, scale-free (Fishr)", _alone),
    ("hessian_diagonal_distance_scale_free", "distance of diagonal Hessians, scale-free", _alone),
    ("variance_hessian_cosine", "cosine of variance and diagonal Hessian, mean over domains", _mean),
    ("covariance_hessian_cosine", "cosine of covariance and Hessian, mean over domains", _mean),
    ("hessian_cosines", "cosine of the Hessians, mean over pairs", _mean_of_pairs),
    ("gradient_cosines", "cosine of the gradients, mean over pairs", _mean_of_pairs),
    ("sign_agreement", "share of parameters whose gradients agree in sign", _alone),
    ("inconsistency_second_order", "inconsistency to second order", _alone),
    ("inconsistency_diagonal_proxy", "inconsistency, diagonal proxy", _alone),
)
