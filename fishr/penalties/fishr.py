"""Fishr: match the variances of per-sample gradients across domains."""

from typing import ClassVar, Literal, get_args

import torch
from attrs import evolve, field, frozen
from torch import Tensor

from fishr.checks import number, one_of
from fishr.errors import InputError
from fishr.grad_mode import under_vmap
from fishr.observation import Observation
from fishr.penalties.moving_average import Average, Gain, MovingAverage
from fishr.penalties.penalty import require_present
from fishr.row_checks import kind
from fishr.statistics.distances import (
    Reduction,
    covariance_products,
    distance_scale,
    distance_to_mean,
    distance_to_mean_of_products,
    divisor,
)
from fishr.statistics.fused_gap import stack_gap
from fishr.statistics.gap_blocks import GapRule
from fishr.types import Problem

Statistic = Literal["variance", "second_moment", "covariance"]
Distance = Literal["squared", "scale_free"]


@frozen
class Fishr:
    """(1/K) Σ_e ‖v̂_e − mean v̂‖², v_e the variance of the head's per-sample gradients in domain e.

    Sum, mean and K are over the domains present in the batch; the moving average of a missing one stays as it is.

    Args:
        statistic: ``"variance"`` (the method); ``"second_moment"``, not centered, the diagonal of the empirical
            Fisher; or ``"covariance"``, all its entries, through Gram matrices and without moving average.
        ema: γ of the moving average of v_e over steps; 0 for none.
        gain: gain convention of the moving average, see ``MovingAverage``.
        over_parameters: ``"mean"`` divides by P (P² entries for covariances; DomainBed), ``"sum"`` does not
            (the IRM Colored MNIST script). Each needs its own penalty weight.
        over_domains: ``"mean"`` divides by K, ``"sum"`` does not.
        unbiased: variances divided by n−1 (the paper's text) instead of n (both public implementations).
        distance: ``"squared"`` (the method), or ``"scale_free"``, divided by ‖mean v̂‖²: without unit, so that a weight
            fits networks, losses and stages of training of any scale. ``over_parameters`` then changes nothing. The
            penalty is 0, without a gradient, where ‖mean v̂‖ is below ε² of its type (2e-14 in float32).

    Raises:
        InputError: an invalid value or combination; when called, a state that is not of this penalty, or a scale-free
            distance of one sample of each domain.

    Example:
        >>> import torch
        >>> from fishr.observation import observe
        >>> from fishr.types import DomainBatch
        >>> head, penalty = torch.nn.Linear(3, 2), Fishr(ema=0.95)
        >>> state = penalty.init(Problem.of(head, domains=2))
        >>> batch = DomainBatch(torch.randn(8, 3), torch.randint(2, (8,)), sizes=(4, 4))
        >>> value, state = penalty(observe(torch.nn.Identity(), head, batch), state, step=0)
        >>> value.shape, state.updates
        (torch.Size([]), 1)

    Source:
        Ramé, Dancette and Cord 2022 (arXiv 2109.02934), equation 4.
    """

    statistic: Statistic = field(default="variance", validator=one_of(*get_args(Statistic)))
    ema: float = field(default=0.0, validator=number(below=1.0))
    gain: Gain = "unit_gradient"
    over_parameters: Reduction = field(default="mean", validator=one_of(*get_args(Reduction)))
    over_domains: Reduction = field(default="mean", validator=one_of(*get_args(Reduction)))
    unbiased: bool = False
    distance: Distance = field(default="squared", validator=one_of(*get_args(Distance)))
    least_domains: ClassVar[int] = 2

    @property
    def per_head(self) -> tuple[str, ...]:
        return ("ema",) if self.ema else ()

    @property
    def takes_weights(self) -> bool:
        return self.statistic != "covariance" and not self.unbiased

    def __attrs_post_init__(self) -> None:
        MovingAverage(self.ema, self.gain)
        if self.statistic == "covariance" and self.ema:
            raise InputError(f'ema: got {self.ema} with statistic "covariance", expected 0; no covariance is stored')
        if self.statistic != "variance" and self.unbiased:
            raise InputError(f'unbiased: got true with statistic "{self.statistic}", it is for "variance"')

    def init(self, problem: Problem) -> Average | tuple[()]:
        """Return the moving average's state, or none; refuse fewer than two domains."""
        problem.require_domains("Fishr", self.least_domains)
        return MovingAverage(self.ema, self.gain).init(problem) if self.ema else ()

    def __call__(self, seen: Observation, state: Average | tuple[()], step: int) -> tuple[Tensor, Average | tuple[()]]:
        """Return the penalty, 0-dim, (loss/parameter)⁴ or without unit, and the next state."""
        require_present(seen, "Fishr", self.least_domains)
        if isinstance(state, Average) != (isinstance(self.ema, Tensor) or self.ema > 0):
            raise InputError(
                f"Fishr: got {kind(state)} as its state, expected that of this penalty; begin with "
                "state = penalty.init(fishr.Problem.of(head, domains))"
            )
        if isinstance(state, Average):
            # Where the head is, which may have moved.
            state = state.on(seen.batch.labels.device)
        scale_free = self.distance == "scale_free"
        if scale_free and max(seen.sizes) == 1 and self.statistic != "second_moment":
            raise InputError(
                'distance: got "scale_free" with one sample of each domain, whose variances are zero; draw more of each'
            )
        if self.statistic == "covariance":
            products = covariance_products(seen.gram, seen.sizes)
            # The distance is a mean over domains already, and ‖mean C‖² is the mean of all products.
            distance = distance_to_mean_of_products(products) * self._scale(seen.domains, seen.layout.size**2)
            return distance * seen.domains / (divisor(products.mean()) if scale_free else 1), state
        average, present = MovingAverage(self.ema, self.gain), seen.present
        divisors = average.divisors(state, present) if isinstance(state, Average) else (1.0,)
        # The compiler fuses the plain steps itself; for several linear heads at once they take as long as one pass.
        plain = torch.compiler.is_compiling() or under_vmap() or seen.weights is not None
        if plain or not seen.closed_form or len(set(divisors)) > 1:
            moments = seen.moments
            statistic = moments.unbiased_variance if self.unbiased else getattr(moments, self.statistic)
            if isinstance(state, Average):
                average.check(state, (seen.batch.domains, statistic.shape[1]))
                statistic, state = average(statistic, state, present)
            distance = distance_to_mean(statistic, "sum", "sum") * self._scale(*statistic.shape)
            return distance / (divisor(statistic.mean(0).square().sum()) if scale_free else 1), state
        # Linear layers: distance and moving average in one pass that stores no variances.
        factors = seen.own.factors
        parameters = sum(layer.size for layer in factors)
        rule = GapRule(
            centered=self.statistic == "variance",
            unbiased=self.unbiased,
            scale=self._scale(seen.domains, parameters),
            scale_free=scale_free,
        )
        if not isinstance(state, Average):
            return stack_gap(factors, seen.own_sizes, rule, ranks=seen.ranks)[0], state
        average.check(state, (seen.batch.domains, parameters))
        rule = evolve(rule, gain=(1 - self.ema) / divisors[0], memory_gain=self.ema / divisors[0], keep=divisors[0])
        value, memory = stack_gap(factors, seen.own_sizes, rule, state.rows(present), seen.ranks)
        assert memory is not None
        return value, state.updated(memory, present)

    def _scale(self, domains: int, size: int) -> float:
        over_parameters = "sum" if self.distance == "scale_free" else self.over_parameters
        return distance_scale(domains, size, over_parameters, self.over_domains)
