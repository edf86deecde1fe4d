"""The fused distance against its plain composition: value, gradients, second derivatives, transforms."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from attrs import evolve, frozen
from cases import EXACT, FLOAT64
from gaps import linear_gap
from hypothesis import given
from hypothesis import strategies as st
from ranks import on_ranks
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from fishr.errors import InputError
from fishr.ranks import ALONE, Ranks
from fishr.statistics import distance_to_mean, fused_gap, gap_blocks, linear_moments
from fishr.statistics.fused_gap import stack_gap
from fishr.statistics.gap_blocks import GapRule
from fishr.statistics.linear_heads import Factors

SIZES = ((4, 4), (2, 5, 3), (7,), (1, 1, 1))


@frozen
class Rule(GapRule):
    bias: bool = True


RULE = Rule(scale=0.7)
RULES = {
    "variance": RULE,
    "second moment": evolve(RULE, centered=False),
    "unbiased": evolve(RULE, unbiased=True),
    "without bias": evolve(RULE, bias=False),
    "with memory": evolve(RULE, gain=0.3, memory_gain=1.7, keep=0.6),
    "unbiased with memory": evolve(RULE, unbiased=True, gain=0.3, memory_gain=1.7),
    "all at once": Rule(False, False, gain=2.0, memory_gain=0.5, scale=3.0, bias=False),
    "scale free": evolve(RULE, scale_free=True),
    "scale free with memory": Rule(gain=0.3, memory_gain=1.7, keep=0.6, scale=2.0, scale_free=True),
}


def plain(
    deltas: Tensor, features: Tensor, sizes: tuple[int, ...], rule: Rule, memory: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same in the steps that the rule spells out."""
    moments = linear_moments(deltas, features, sizes, rule.bias)
    statistic = moments.variance if rule.centered else moments.second_moment
    if rule.unbiased:
        statistic = moments.unbiased_variance
    statistic = rule.gain * statistic
    if memory is not None:
        statistic = statistic + rule.memory_gain * memory
    value = rule.scale * distance_to_mean(statistic, "sum", "sum")
    square = statistic.mean(0).square().sum()
    if rule.scale_free:
        value = value / square if square > 0 else 0 * value
    return value, rule.keep * statistic.detach()


def tensors(sizes: tuple[int, ...], rule: Rule) -> tuple[Tensor, Tensor, Tensor | None]:
    deltas = torch.randn(sum(sizes), 3, dtype=FLOAT64, requires_grad=True)
    features = torch.randn(sum(sizes), 4, dtype=FLOAT64, requires_grad=True)
    columns = 3 * (4 + rule.bias)
    return deltas, features, torch.rand(len(sizes), columns, dtype=FLOAT64) if rule.memory_gain else None


# Elements of a block, of the rows read at a time, and classes and features at least. Blocks of everything; of one entry
# with one row; of two classes and features, with one left; of some features with all classes, and rows of one domain;
# of everything, with the rows of some domains.
TILES = {
    "whole": (1 << 21, 1 << 18, 128),
    "smallest": (1, 1, 1),
    "uneven": (1, 1 << 18, 2),
    "tall": (3 * 3 * 3, 8, 1),
    "domains": (1 << 21, 48, 128),
}


def set_tiles(name: str) -> None:
    block, rows, gap_blocks._SIDE = TILES[name]
    gap_blocks._BLOCK, gap_blocks._ROWS = ({"cpu": size, "cuda": size} for size in (block, rows))
    gap_blocks._LINE = 1


@pytest.fixture(autouse=True)
def tiles_as_they_were() -> Iterator[None]:
    before = gap_blocks._BLOCK, gap_blocks._ROWS, gap_blocks._SIDE, gap_blocks._LINE
    yield
    gap_blocks._BLOCK, gap_blocks._ROWS, gap_blocks._SIDE, gap_blocks._LINE = before


@given(st.integers(1, 9000), st.integers(128, 3000))
def test_parts_are_the_fewest_and_of_about_one_size(whole: int, most: int) -> None:
    size = gap_blocks._evenly(whole, most)
    parts = [min(size, whole - start) for start in range(0, whole, size)]
    assert len(parts) <= -(-whole // most)
    assert max(parts) - min(parts) < gap_blocks._LINE * len(parts)
    assert max(parts) < most + gap_blocks._LINE
    assert size == whole or size % gap_blocks._LINE == 0


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 40))
def test_chunks_hold_each_sample_once(domains: int, samples: int, rows: int) -> None:
    seen = torch.zeros(domains, samples)
    for some, part in gap_blocks._chunks(domains, samples, rows):
        chunk = seen[some, part]
        chunk += 1
        assert 0 < chunk.numel() <= rows
        assert part == slice(0, samples) or len(chunk) == 1
    assert (seen == 1).all()


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_value_memory_and_gradients_are_those_of_the_plain_steps(
    sizes: tuple[int, ...], rule_name: str, tiles: str
) -> None:
    rule = RULES[rule_name]
    set_tiles(tiles)
    deltas, features, memory = tensors(sizes, rule)
    if rule.scale_free and memory is None and max(sizes) == 1:
        pytest.skip("rounding, divided by rounding")
    if rule.unbiased and min(sizes) < 2:
        with pytest.raises(InputError, match="at least 2 samples"):
            linear_gap(deltas, features, sizes, rule, memory)
        return
    expected, smoothed_expected = plain(deltas, features, sizes, rule, memory)
    found, smoothed = linear_gap(deltas, features, sizes, rule, memory)
    assert_close(found, expected, **EXACT)
    if memory is None:
        assert smoothed is None
    else:
        assert_close(smoothed, smoothed_expected, **EXACT)
        assert not smoothed.requires_grad
    by_expected = torch.autograd.grad(5 * expected, [deltas, features])
    flat = len(sizes) == 1 or (rule.centered and max(sizes) == 1)  # one domain, or variances that are all zero
    assert flat or min(g.abs().max() for g in by_expected) > 1e-6
    assert_close(torch.autograd.grad(5 * found, [deltas, features]), by_expected, **EXACT)


@pytest.mark.parametrize("rule_name", RULES)
def test_second_derivatives_are_those_of_the_plain_steps(rule_name: str) -> None:
    rule, sizes = RULES[rule_name], (2, 5, 3)
    deltas, features, memory = tensors(sizes, rule)

    def second(value: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(value, [deltas, features], create_graph=True)
        return (*first, *torch.autograd.grad(sum(g.pow(3).sum() for g in first), [deltas, features]))

    expected = second(plain(deltas, features, sizes, rule, memory)[0])
    assert_close(second(linear_gap(deltas, features, sizes, rule, memory)[0]), expected, **EXACT)


@pytest.mark.slow
def test_the_derivative_by_the_upstream_gradient() -> None:
    deltas, features, _ = tensors((2, 3), RULE)
    assert torch.autograd.gradcheck(lambda d, z: linear_gap(d, z, (2, 3), RULE)[0] ** 2, (deltas, features))
    assert torch.autograd.gradgradcheck(lambda d, z: linear_gap(d, z, (2, 3), RULE)[0] ** 2, (deltas, features))


@pytest.mark.parametrize("rule_name", ["variance", "with memory", "all at once"])
def test_torch_func_goes_through(rule_name: str) -> None:
    rule, sizes = RULES[rule_name], (2, 5, 3)
    deltas, features, memory = tensors(sizes, rule)
    many = torch.randn(4, *deltas.shape, dtype=FLOAT64)

    def fused(deltas: Tensor, features: Tensor) -> Tensor:
        return linear_gap(deltas, features, sizes, rule, memory)[0]

    def composed(deltas: Tensor, features: Tensor) -> Tensor:
        return plain(deltas, features, sizes, rule, memory)[0]

    for both in ((0, 1), (1,)):
        assert_close(
            torch.func.grad(fused, both)(deltas, features), torch.func.grad(composed, both)(deltas, features), **EXACT
        )
    expected = torch.stack([composed(d, features) for d in many])
    assert_close(torch.func.vmap(fused, (0, None))(many, features), expected, **EXACT)
    by_expected = torch.stack([torch.func.grad(composed, 1)(d, features) for d in many])
    assert_close(torch.func.vmap(torch.func.grad(fused, 1), (0, None))(many, features), by_expected, **EXACT)


def test_each_head_has_its_own_memory_under_vmap() -> None:
    rule, sizes = RULES["with memory"], (2, 3)
    deltas, features, _ = tensors(sizes, rule)
    memories = torch.rand(4, 2, 15, dtype=FLOAT64)
    values, smoothed = torch.func.vmap(lambda m: linear_gap(deltas, features, sizes, rule, m))(memories)
    for i, memory in enumerate(memories):
        value, statistic = plain(deltas, features, sizes, rule, memory)
        assert_close(values[i], value, **EXACT)
        assert_close(smoothed[i], statistic, **EXACT)


def test_a_memory_of_less_precision_coarsens_nothing_else() -> None:
    rule, sizes = RULES["with memory"], (2, 5, 3)
    deltas, features, memory = tensors(sizes, rule)
    coarse = memory.to(torch.float32)
    expected = torch.autograd.grad(plain(deltas, features, sizes, rule, coarse.double())[0], [deltas, features])
    value, smoothed = linear_gap(deltas, features, sizes, rule, coarse)
    assert smoothed.dtype == FLOAT64
    assert_close(torch.autograd.grad(value, [deltas, features]), expected, **EXACT)


def test_inputs_are_not_changed_and_frozen_ones_get_no_gradient() -> None:
    deltas, features, memory = tensors((2, 3), RULES["with memory"])
    before = [x.detach().clone() for x in (deltas, features, memory)]
    value, smoothed = linear_gap(deltas, features.detach(), (2, 3), RULES["with memory"], memory)
    value.backward()
    smoothed.zero_()
    assert_close([deltas.detach(), features.detach(), memory], before)
    assert features.grad is None
    assert deltas.grad is not None


def test_what_cannot_be_is_refused() -> None:
    deltas, features, _ = tensors((2, 3), RULE)
    with pytest.raises(InputError, match="sizes: got"):
        linear_gap(deltas, features, (2, 2), RULE)
    with pytest.raises(InputError, match="at least 2 samples"):
        linear_gap(deltas, features, (1, 4), RULES["unbiased"])
    for keep in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match=f"keep: got {keep}"):
            GapRule(keep=keep)


# Samples of three domains on each of four ranks; two ranks have those of two of them each.
ON_RANKS = ((2, 1, 1), (1, 4, 3), (5, 1, 1), (1, 2, 6))


def sizes_of(ranks: Ranks) -> tuple[int, ...]:
    step = len(ON_RANKS) // ranks.count
    return tuple(map(sum, zip(*ON_RANKS[ranks.number * step : (ranks.number + 1) * step], strict=True)))


def rows_of(ranks: Ranks, rows: Tensor) -> Tensor:
    """Of one process's rows, domain by domain, those that a rank has."""
    sizes = [sizes_of(Ranks(number, ranks.count))[domain] for domain in range(3) for number in range(ranks.count)]
    return torch.cat(rows.split(sizes)[ranks.number :: ranks.count])


@frozen(eq=False)
class Case:
    """What one process would compute."""

    deltas: Tensor
    features: Tensor
    memory: Tensor | None
    rule: Rule
    tiles: str
    gathered: bool


def differentiated(ranks: Ranks, case: Case, weight: float) -> tuple[list[Tensor], list[Tensor]]:
    """Value and memory; and by the rank's rows the gradients, fused and differentiable, and second derivatives."""
    set_tiles(case.tiles)
    fused_gap._gathers = lambda *_: case.gathered
    rows = [rows_of(ranks, each).requires_grad_() for each in (case.deltas, case.features)]
    value, remembered = linear_gap(*rows, sizes_of(ranks), case.rule, case.memory, ranks)
    # Of a square the gradient depends on the value; in float32 that would square what is lost.
    objective = weight * (value.square() if value.dtype == FLOAT64 else value)
    first = torch.autograd.grad(objective, rows, retain_graph=True)
    again = torch.autograd.grad(objective, rows, create_graph=True)
    second = torch.autograd.grad(sum(g.pow(3).sum() for g in again), rows)
    shared = [value.detach()] if remembered is None else [value.detach(), remembered]
    return shared, [*first, *(g.detach() for g in again), *second]


def all_differentiated(ranks: Ranks, cases: list[Case]) -> list[tuple[list[Tensor], list[Tensor]]]:
    # Each rank's objective has another weight.
    return [differentiated(ranks, case, ranks.number + 1) for case in cases]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_ranks_have_the_value_and_the_gradients_of_one_process(count: int) -> None:
    cases, sizes = list[Case](), sizes_of(ALONE)
    # Tiles and rounding are each rank's own: of two it shows what they do, of four that there may be more.
    whole, dtypes = next(iter(TILES)), (FLOAT64, torch.float32) if count == 2 else (FLOAT64,)
    ways = [(tiles, False) for tiles in (TILES if count == 2 else (whole, "uneven"))] + [(whole, True)]
    for rule, (tiles, gathered), dtype in product(RULES.values(), ways, dtypes):
        given = (x if x is None else x.detach().to(dtype) for x in tensors(sizes, rule))
        cases.append(Case(*given, rule, tiles, gathered))
    expected = [differentiated(ALONE, case, sum(range(1, count + 1))) for case in cases]
    found = on_ranks(count, all_differentiated, cases)
    for number, of_rank in enumerate(found):
        for case, (shared, by_rows), (shared_expected, by_all) in zip(cases, of_rank, expected, strict=True):
            exact = case.deltas.dtype == FLOAT64
            pairs = [*zip(shared, shared_expected, strict=True)]
            pairs += [(x, rows_of(Ranks(number, count), y)) for x, y in zip(by_rows, by_all, strict=True)]
            for order, (one, other) in enumerate(pairs):
                # The second derivatives, the last two, are of a cube of what has lost digits already.
                bound = 1e-12 if exact else 1e-6 if order < len(pairs) - 2 else 1e-5
                assert (one - other).norm() <= bound * other.norm(), (case, order)
    for case, *all_ranks in zip(cases, *found, strict=True):
        for shared, _ in all_ranks:
            assert all(torch.equal(x, y) for x, y in zip(shared, all_ranks[0][0], strict=True)), case


def unbiased(ranks: Ranks) -> float:
    ones = torch.ones(2, 1)
    return float(linear_gap(ones, ones, (1, 1), RULES["unbiased"], ranks=ranks)[0])


@pytest.mark.slow
def test_domains_may_have_one_sample_a_rank() -> None:
    assert on_ranks(2, unbiased) == [0.0, 0.0]


class _Zeros(TorchDispatchMode):
    """Collects the sizes of tensors that are filled with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = list[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "zero" in str(func):
            self.sizes.append(result.numel())
        return result


@pytest.mark.parametrize("scale_free", [False, True])
def test_the_backward_pass_is_given_no_zeros_of_the_size_of_what_is_kept(scale_free: bool) -> None:
    deltas, features = torch.randn(8, 40, requires_grad=True), torch.randn(8, 50)
    memory = torch.rand(2, 40 * 51)
    rule = GapRule(gain=0.5, memory_gain=0.5, scale_free=scale_free)
    value, _ = stack_gap((Factors(deltas, features, True),), (4, 4), rule, memory)
    with _Zeros() as zeros:
        torch.autograd.grad(value, deltas)
    assert max(zeros.sizes) <= deltas.numel()
