"""The fused distance of one linear layer."""

from torch import Tensor

from fishr.ranks import ALONE, Ranks
from fishr.statistics.fused_gap import stack_gap
from fishr.statistics.gap_blocks import GapRule
from fishr.statistics.linear_heads import Factors


def linear_gap(
    deltas: Tensor,
    features: Tensor,
    sizes: tuple[int, ...],
    rule: GapRule,
    memory: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Tensor, Tensor | None]:
    return stack_gap([Factors(deltas, features, getattr(rule, "bias", True))], sizes, rule, memory, ranks)
