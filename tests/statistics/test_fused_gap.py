"""The fused distance against its plain composition: value, gradients, second derivatives, transforms."""

import pytest
import torch
from attrs import evolve
from cases import EXACT, FLOAT64
from torch import Tensor
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.statistics import GapRule, distance_to_mean, fused_gap, linear_gap, linear_moments

SIZES = ((4, 4), (2, 5, 3), (7,), (1, 1, 1))
RULE = GapRule(scale=0.7)
RULES = {
    "variance": RULE,
    "second moment": evolve(RULE, centered=False),
    "unbiased": evolve(RULE, unbiased=True),
    "without bias": evolve(RULE, bias=False),
    "with memory": evolve(RULE, gain=0.3, memory_gain=1.7),
    "all at once": GapRule(False, False, gain=2.0, memory_gain=0.5, scale=3.0, bias=False),
}


def plain(
    deltas: Tensor, features: Tensor, sizes: tuple[int, ...], rule: GapRule, memory: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The same in the steps that the rule spells out."""
    moments = linear_moments(deltas, features, sizes, rule.bias)
    statistic = moments.variance if rule.centered else moments.second_moment
    if rule.unbiased:
        statistic = moments.unbiased_variance
    statistic = rule.gain * statistic
    if memory is not None:
        statistic = statistic + rule.memory_gain * memory
    return rule.scale * distance_to_mean(statistic, "sum", "sum"), statistic.detach()


def tensors(sizes: tuple[int, ...], rule: GapRule) -> tuple[Tensor, Tensor, Tensor | None]:
    deltas = torch.randn(sum(sizes), 3, dtype=FLOAT64, requires_grad=True)
    features = torch.randn(sum(sizes), 4, dtype=FLOAT64, requires_grad=True)
    columns = 3 * (4 + rule.bias)
    return deltas, features, torch.rand(len(sizes), columns, dtype=FLOAT64) if rule.memory_gain else None


# Blocks of everything, of one class with one row, and of two classes (of three) with one row of the domains.
TILES = {"whole": (1 << 21, 1 << 18), "smallest": (1, 1), "uneven": (2 * 4 * 3, 4 * 3 * 2)}


@pytest.mark.parametrize("tiles", TILES)
@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_value_memory_and_gradients_are_those_of_the_plain_steps(
    sizes: tuple[int, ...], rule_name: str, tiles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = RULES[rule_name]
    monkeypatch.setattr(fused_gap, "_BLOCK", {"cpu": TILES[tiles][0], "cuda": 1})
    monkeypatch.setattr(fused_gap, "_ROWS", {"cpu": TILES[tiles][1], "cuda": 1})
    deltas, features, memory = tensors(sizes, rule)
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
