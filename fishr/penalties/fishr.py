"""Fishr: gradient variances that match across domains."""

from typing import ClassVar, Literal, get_args

from attrs import field, frozen
from attrs.validators import in_
from torch import Tensor

from fishr.errors import InputError
from fishr.observation import Observation
from fishr.penalties.moving_average import Average, Gain, MovingAverage
from fishr.penalties.penalty import require_domains
from fishr.statistics.distances import (
    Reduction,
    covariance_products,
    distance_scale,
    distance_to_mean,
    distance_to_mean_of_products,
)
from fishr.statistics.fused_gap import GapRule, linear_gap
from fishr.statistics.linear_head import has_bias
from fishr.types import Problem

Statistic = Literal["variance", "second_moment", "covariance"]


@frozen
class Fishr:
    """(1/K) Σ_e ‖v̂_e − mean v̂‖², v_e the variance of the head's per-sample gradients in domain e.

    Args:
        statistic: ``"variance"`` (the method); ``"second_moment"``, uncentred, the diagonal of the empirical Fisher;
            or ``"covariance"``, all its entries, through Gram matrices and without moving average.
        ema: γ of the moving average of v_e over steps; 0 for none.
        gain: its convention, see ``MovingAverage``.
        over_parameters: ``"mean"`` divides by P (P² entries for covariances; DomainBed), ``"sum"`` does not
            (the IRM Colored MNIST script). The penalty's weight does not transfer between the two.
        over_domains: ``"mean"`` divides by K, ``"sum"`` does not.
        unbiased: variances divided by n−1 (the paper's text) instead of n (both public implementations).

    Raises:
        InputError: a combination that does not exist.

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

    statistic: Statistic = field(default="variance", validator=in_(get_args(Statistic)))
    ema: float = 0.0
    gain: Gain = "unit_gradient"
    over_parameters: Reduction = field(default="mean", validator=in_(get_args(Reduction)))
    over_domains: Reduction = field(default="mean", validator=in_(get_args(Reduction)))
    unbiased: bool = False
    least_domains: ClassVar[int] = 2

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise InputError(f"ema: got {self.ema}, expected at least 0 and below 1")
        MovingAverage(self.ema, self.gain)
        if self.statistic == "covariance" and self.ema:
            raise InputError(f'ema: got {self.ema} with statistic "covariance", expected 0; it is never built whole')
        if self.statistic != "variance" and self.unbiased:
            raise InputError(f'unbiased: got true with statistic "{self.statistic}", it is for "variance"')

    def init(self, problem: Problem) -> Average | tuple[()]:
        """The moving average's state, or none.

        Raises:
            InputError: fewer than two domains.
        """
        require_domains("Fishr", self, problem)
        return MovingAverage(self.ema, self.gain).init(problem) if self.ema else ()

    def __call__(self, seen: Observation, state: Average | tuple[()], step: int) -> tuple[Tensor, Average | tuple[()]]:
        """The penalty, 0-dim, (loss/parameter)⁴, and the next state."""
        if self.statistic == "covariance":
            return self._covariance_distance(seen), state
        if seen.closed_form:
            return self._fused(seen, state)
        moments = seen.moments
        statistic = moments.unbiased_variance if self.unbiased else getattr(moments, self.statistic)
        if isinstance(state, Average):
            statistic, state = MovingAverage(self.ema, self.gain)(statistic, state)
        return distance_to_mean(statistic, self.over_parameters, self.over_domains), state

    def _fused(self, seen: Observation, state: Average | tuple[()]) -> tuple[Tensor, Average | tuple[()]]:
        """The same for a linear head, without storing the variances; the average takes part in the same sweep."""
        bias, own = has_bias(seen.head), seen.own
        outputs, features = own.deltas.shape[1], own.features.shape[1]
        scale = distance_scale(seen.domains, outputs * (features + bias), self.over_parameters, self.over_domains)
        average, memory = MovingAverage(self.ema, self.gain), None
        gain, memory_gain, divisor = 1.0, 0.0, 1.0
        if isinstance(state, Average):
            average.check(state, (seen.domains, outputs * (features + bias)))
            divisor = average.divisor(state.updates + 1)
            memory, gain, memory_gain = state.value, (1 - self.ema) / divisor, self.ema / divisor
        rule = GapRule(
            centered=self.statistic == "variance",
            unbiased=self.unbiased,
            gain=gain,
            memory_gain=memory_gain,
            keep=divisor,
            scale=scale,
            bias=bias,
        )
        value, memory = linear_gap(own.deltas, own.features, own.sizes, rule, memory, seen.ranks)
        if memory is None or not isinstance(state, Average):
            return value, state
        return value, Average(memory, state.updates + 1)

    def _covariance_distance(self, seen: Observation) -> Tensor:
        distance = distance_to_mean_of_products(covariance_products(seen.gram, seen.sizes))
        # The distance has its mean over domains already.
        scale = distance_scale(seen.domains, seen.layout.size**2, self.over_parameters, self.over_domains)
        return distance * scale * seen.domains
