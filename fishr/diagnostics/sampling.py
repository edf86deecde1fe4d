"""Estimates from independent random draws: their means, and functions of those means with errors by the jackknife."""

from collections.abc import Callable

import torch
from torch import Tensor

from fishr.diagnostics.hessian import Estimate


def averaged(draws: Tensor, route: str) -> Estimate:
    """Return the mean of independent unbiased draws.

    Args:
        draws: [M, ...], at least 2.
        route: how they were drawn.

    Returns:
        The mean. Its error is the standard error times t/1.96 with Student's t for M draws, so that twice the error
        covers the truth in 95 of 100 cases also where M is small.

    Example:
        >>> found = averaged(torch.tensor([1.0, 3.0]), "two draws")
        >>> found.value, round(float(found.error), 3)
        (tensor(2.), 6.483)
    """
    count = len(draws)
    error = draws.std(0) / count**0.5 * _student(count)
    covered = f"error: the standard error of {count} draws (twice it covers 95 %)"
    return Estimate(draws.mean(0), f"{route}, {covered}", error, draws)


def jackknife(
    function: Callable[..., Tensor], *estimates: Estimate, smooth: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Return a function of estimates and its error, by leaving out one draw at a time.

    Draws that estimates have in common, such as those of two domains from one seed, cancel as far as they cancel in
    the function: the difference of an estimate from itself is 0 ± 0.

    Args:
        function: of the estimates' values.
        estimates: each with its ``draws``, independent of those of the others; without draws it counts as exact.
        smooth: the bias of first order is subtracted. With False, for maxima and thresholds, where that could leave
            the function's range, it is added to the error.

    Returns:
        The value, and its error as ``averaged`` defines it; None if all are exact.

    Example:
        >>> draws = torch.tensor([0.9, 1.1, 1.3, 0.7])
        >>> value, error = jackknife(torch.square, averaged(draws, "four draws"))
        >>> round(float(value), 4), round(float(error), 4)
        (0.9833, 0.4194)

    Source:
        Efron and Stein 1981, The jackknife estimate of variance.
    """
    values = [estimate.value for estimate in estimates]
    value = function(*values)
    bias, variance = torch.zeros_like(value), torch.zeros_like(value)
    if all(estimate.draws is None for estimate in estimates):
        return value, None
    for place, estimate in enumerate(estimates):
        if estimate.draws is None:
            continue
        count = len(estimate.draws)
        remainders = ((count * estimate.value - draw) / (count - 1) for draw in estimate.draws)
        without = torch.stack([function(*values[:place], rest, *values[place + 1 :]) for rest in remainders])
        bias = bias + (count - 1) * (without - value).mean(0)
        variance = variance + (count - 1) * without.var(0, correction=0) * _student(count) ** 2
    return (value - bias, variance.sqrt()) if smooth else (value, variance.sqrt() + bias.abs())


def _student(count: int) -> float:
    """The factor by which a 95 % interval from so many draws is wider than a normal one."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975)) / 1.959964
