"""Parts merge to the whole, however they are cut and ordered."""

import math

import pytest
import torch
from cases import EXACT, FLOAT64
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.statistics import merge_moments
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.merge import equal_domains, moments_of_domains, moments_of_samples
from fishr.types import Layout

LAYOUT = Layout(("weight",), ((3,),))


def moments(*domains: Tensor) -> GradientMoments:
    """By the definition; a domain without samples has nothing to say."""
    mean = torch.stack([d.sum(0) / len(d) if len(d) else d.new_full((3,), math.nan) for d in domains])
    variance = torch.stack([((d - m) ** 2).sum(0) / max(len(d), 1) for d, m in zip(domains, mean, strict=True)])
    return GradientMoments(tuple(map(len, domains)), mean, variance, LAYOUT)


@settings(max_examples=50)
@given(st.data())
def test_any_split_in_any_order_merges_to_the_whole(data: st.DataObject) -> None:
    """Each sample of two domains goes to one of four parts; a part may get none of a domain's, or none at all."""
    owners = [data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=7), label="owners") for _ in range(2)]
    order = data.draw(st.permutations(range(4)))
    draws = torch.Generator().manual_seed(len(owners[0]))
    domains = [torch.randn(len(o), 3, generator=draws, dtype=FLOAT64) for o in owners]
    parts = [
        moments(*(d[torch.tensor([o == part for o in owner])] for d, owner in zip(domains, owners, strict=True)))
        for part in order
    ]
    whole, merged = moments(*domains), merge_moments(*parts)
    assert merged.count == whole.count
    assert_close(merged.mean, whole.mean, **EXACT)
    assert_close(merged.variance, whole.variance, **EXACT)


def test_merging_is_associative_and_one_part_is_itself() -> None:
    a, b, c = (moments(torch.randn(n, 3, dtype=FLOAT64), torch.randn(1, 3, dtype=FLOAT64)) for n in (1, 2, 5))
    left, right = merge_moments(merge_moments(a, b), c), merge_moments(a, merge_moments(b, c))
    assert_close(left.variance, right.variance, **EXACT)
    assert merge_moments(a) is a


def test_a_huge_mean_costs_no_digits_in_float32() -> None:
    """mean/std = 10⁴: the difference of second moments would be off by the variance itself and more."""
    samples = 1e4 + torch.randn(64, 3, generator=torch.Generator().manual_seed(3))
    parts = [GradientMoments((16,), p.mean(0)[None], p.var(0, unbiased=False)[None], LAYOUT) for p in samples.split(16)]
    exact = samples.double().var(0, unbiased=False)
    naive = (samples**2).mean(0) - samples.mean(0) ** 2
    assert ((naive.double() - exact) / exact).abs().max() > 0.5
    assert_close(merge_moments(*parts).variance[0].double(), exact, atol=0.0, rtol=1e-3)


def test_gradients_flow_through_the_parts_and_skip_what_is_empty() -> None:
    samples = torch.randn(6, 3, dtype=FLOAT64, requires_grad=True)
    whole = moments(samples, samples)
    parts = [moments(samples[:0], samples[:2]), moments(samples[:4], samples[2:]), moments(samples[4:], samples[:0])]
    merged = merge_moments(*parts)
    (expected,) = torch.autograd.grad(whole.variance.square().sum(), [samples])
    assert_close(torch.autograd.grad(merged.variance.square().sum(), [samples])[0], expected, **EXACT)


def test_samples_in_chunks_are_the_samples() -> None:
    samples = torch.randn(2, 7, 2, 3, dtype=FLOAT64)
    mean, variance = moments_of_samples([samples[:, :1], samples[:, 1:5], samples[:, 5:]])
    assert_close(mean, samples.mean(1), **EXACT)
    assert_close(variance, samples.var(1, unbiased=False), **EXACT)
    with pytest.raises(InputError, match="no chunk"):
        moments_of_samples([])


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6), step=st.integers(1, 10))
def test_blocks_hold_domains_of_one_size_and_at_most_so_many_samples(sizes: list[int], step: int) -> None:
    rows, domains = list[int](), list[int]()
    for of, chunks in equal_domains(sizes, step):
        domains += range(len(sizes))[of]
        assert len(set(sizes[of])) == 1
        assert len(chunks) == 1 or of.stop == of.start + 1
        assert all(chunk.stop - chunk.start <= step for chunk in chunks)
        assert sum(chunk.stop - chunk.start for chunk in chunks) == sum(sizes[of])
        rows += [row for chunk in chunks for row in range(sum(sizes))[chunk]]
    assert (rows, domains) == ([*range(sum(sizes))], [*range(len(sizes))])


@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_moments_of_domains_are_those_of_their_rows(sizes: list[int]) -> None:
    samples = torch.randn(sum(sizes), 2, dtype=FLOAT64)
    mean, variance = moments_of_domains(samples, sizes)
    domains = samples.split(sizes)
    assert_close(mean, torch.stack([rows.mean(0) for rows in domains]), **EXACT)
    assert_close(variance, torch.stack([rows.var(0, unbiased=False) for rows in domains]), **EXACT)


def test_what_does_not_belong_together_is_refused() -> None:
    one, two = moments(torch.zeros(2, 3)), moments(torch.zeros(2, 3), torch.zeros(1, 3))
    other = GradientMoments((2,), torch.zeros(1, 3), torch.zeros(1, 3), Layout(("bias",), ((3,),)))
    with pytest.raises(InputError, match="got no moments"):
        merge_moments()
    for stranger in (two, other):
        with pytest.raises(InputError, match="expected the same domains and parameters"):
            merge_moments(one, stranger)
    with pytest.raises(InputError, match=r"got \(0,\) samples"):
        merge_moments(moments(torch.zeros(0, 3)))
