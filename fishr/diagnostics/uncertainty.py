"""Measured numbers with their errors: quantities, estimates from random draws, and functions of estimates."""

from collections.abc import Callable, Iterable

import torch
from attrs import frozen
from torch import Tensor


@frozen(eq=False)
class Quantity:
    """A measured quantity.

    Args:
        name: of the quantity, such as ``"variance_distances"``.
        value: the numbers, without graph.
        axes: name of each axis of ``value``: ``"domain"``, ``"parameter"``, ``"rank"``; a 0-dim value has none.
        unit: such as ``"(loss/parameter)²"``; ``"1"`` for a pure number.
        route: how it was computed, and what was left out, projected or added.
        error: estimate of the absolute error, of ``value``'s shape or broadcastable to it; None if the route is exact
            up to rounding. Twice the error covers the exact value in about 95 of 100 seeds where draws are random; for
            eigenvalues and what follows from them it is a bound.
    """

    name: str
    value: Tensor
    axes: tuple[str, ...]
    unit: str
    route: str
    error: Tensor | None = None


@frozen
class Estimation:
    """Effort and seed of estimates.

    Args:
        products: Hessian-vector products of one estimate.
        repeats: independent estimates, at least 2; their mean and its standard error are reported.
        seed: of all draws; the global generators keep their state.
        chunk: samples in one pass through a module whose Hessian is known by products alone, which bounds memory.
        tolerance: of the residuals of eigenvalues of such a Hessian, as a share of the largest eigenvalue.
    """

    products: int = 24
    repeats: int = 4
    seed: int = 0
    chunk: int = 256
    tolerance: float = 1e-3


@frozen(eq=False)
class Estimate:
    """A value without graph, its route, its absolute error (None: exact) and the draws [M, ...] it is the mean of."""

    value: Tensor
    route: str
    error: Tensor | None = None
    draws: Tensor | None = None


def joined_routes(routes: Iterable[str]) -> str:
    """Return each route once."""
    return "; ".join(dict.fromkeys(part for route in routes for part in route.split("; ")))


def together(estimates: list[Estimate]) -> Estimate:
    """Stack estimates of equal shapes; those without error count as exact beside the others."""
    value, route = torch.stack([each.value for each in estimates]), joined_routes(each.route for each in estimates)
    if all(each.error is None for each in estimates):
        return Estimate(value, route)
    zero = torch.zeros_like(estimates[0].value)
    error = torch.stack([zero if each.error is None else each.error for each in estimates])
    counts = [len(each.draws) for each in estimates if each.draws is not None]
    if not counts:
        return Estimate(value, route, error)
    repeated = [each.value.expand(counts[0], *zero.shape) if each.draws is None else each.draws for each in estimates]
    return Estimate(value, route, error, torch.stack(repeated, 1))


def largest_of_pairs(pairs: Estimate | Quantity) -> Estimate:
    """Return the largest entry with A ≠ B of values [K, K]; 0 for a single domain."""
    others = ~torch.eye(len(pairs.value), dtype=torch.bool, device=pairs.value.device)
    if not others.any():
        return Estimate(pairs.value.new_zeros(()), pairs.route)
    place = pairs.value[others].argmax()
    error = None if pairs.error is None else pairs.error[others][place]
    return Estimate(pairs.value[others][place], pairs.route, error)


def averaged(draws: Tensor, route: str) -> Estimate:
    """Return the mean of independent unbiased draws [M, ...]."""
    # Student's t/1.96 for M draws: twice the error then covers the truth in 95 of 100 cases for small M too.
    count = len(draws)
    error = draws.std(0) / count**0.5 * _student(count)
    covered = f"error: the standard error of {count} draws (twice it covers 95 %)"
    return Estimate(draws.mean(0), f"{route}, {covered}", error, draws)


def jackknife(function: Callable[..., Tensor], *estimates: Estimate, route: str, smooth: bool = True) -> Estimate:
    """Return a function of independent estimates, with its error by leaving out one draw at a time."""
    # Draws that estimates share cancel as far as they do in the function. The bias of first order is subtracted if
    # `smooth`, else added to the error, as subtracting it could leave the function's range (Efron and Stein 1981).
    values = [estimate.value for estimate in estimates]
    value = function(*values)
    if all(estimate.draws is None for estimate in estimates):
        return Estimate(value, route)
    bias, variance = torch.zeros_like(value), torch.zeros_like(value)
    for place, estimate in enumerate(estimates):
        if estimate.draws is None:
            continue
        count = len(estimate.draws)
        remainders = ((count * estimate.value - draw) / (count - 1) for draw in estimate.draws)
        without = torch.stack([function(*values[:place], rest, *values[place + 1 :]) for rest in remainders])
        bias = bias + (count - 1) * (without - value).mean(0)
        variance = variance + (count - 1) * without.var(0, correction=0) * _student(count) ** 2
    if smooth:
        return Estimate(value - bias, route, variance.sqrt())
    return Estimate(value, route, variance.sqrt() + bias.abs())


def _student(count: int) -> float:
    """Return how much wider a 95 % interval from ``count`` draws is than a normal one."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975)) / 1.959964
