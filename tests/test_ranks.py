"""Sums over ranks against the same in one process: values, derivatives of two orders, and ranks that are lost."""

import threading
import warnings

import pytest
import torch
from cases import FLOAT64
from hypothesis import given
from hypothesis import strategies as st
from ranks import on_ranks
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.diagnostics import risk
from fishr.errors import InputError
from fishr.observation import observe
from fishr.penalties import Fishr, explain
from fishr.ranks import (
    ALONE,
    RankLost,
    Ranks,
    add_over_ranks,
    counts_of_ranks,
    domains_of_ranks,
    losing_ranks,
    sum_over_ranks,
)
from fishr.types import DomainBatch

SHARES = (2, 0, 3, 1)


@given(st.integers(0, 50), st.integers(1, 9))
def test_the_shares_are_the_rows_in_their_order_and_as_even_as_can_be(n: int, count: int) -> None:
    shares = [Ranks(number, count).share(range(n)) for number in range(count)]
    assert [row for share in shares for row in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert torch.equal(Ranks(count - 1, count).share(torch.arange(n)), torch.tensor(list(shares[-1]), dtype=torch.long))


def test_a_number_that_is_no_ranks_is_refused() -> None:
    for number, count in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(InputError, match=f"ranks: got number {number} of {count}"):
            Ranks(number, count)


def test_ranks_need_a_group_that_was_begun() -> None:
    with pytest.raises(InputError, match=r"call torch.distributed.init_process_group first"):
        Ranks.of()


def identity(ranks: Ranks) -> tuple[int, int, bool]:
    return ranks.number, ranks.count, ranks.alone


@pytest.mark.slow
def test_each_rank_knows_its_number() -> None:
    assert on_ranks(3, identity) == [(0, 3, False), (1, 3, False), (2, 3, False)]
    assert on_ranks(1, identity) == [(0, 1, True)]


def test_alone_nothing_is_copied() -> None:
    tensor = torch.ones(2)
    assert sum_over_ranks(tensor, ALONE) is tensor
    assert add_over_ranks(tensor, ALONE) is tensor
    assert counts_of_ranks((3, 4), ALONE) == [(3, 4)]


def added_in_place(ranks: Ranks) -> tuple[Tensor, bool]:
    tensor = torch.full((2,), 10.0**ranks.number)
    return tensor, add_over_ranks(tensor, ranks) is tensor


@pytest.mark.slow
def test_adding_is_in_place() -> None:
    for tensor, same in on_ranks(3, added_in_place):
        assert same
        assert_close(tensor, torch.full((2,), 111.0))


def objective(total: Tensor, number: int) -> Tensor:
    """Another one on each rank, of a sum that they share."""
    return (number + 1) * total.pow(3).sum()


def of_a_sum(ranks: Ranks, x: Tensor) -> list[Tensor]:
    """The sum, and this rank's gradients of two orders."""
    own = x[ranks.number].requires_grad_()
    # Not contiguous, as gradients often are.
    total = sum_over_ranks(own.square().T, ranks)
    (first,) = torch.autograd.grad(objective(total, ranks.number), own, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(3).sum(), own)
    return [total.detach(), first.detach(), second]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_a_sum_and_its_derivatives_are_those_of_one_process(count: int) -> None:
    x = torch.randn(count, 3, 2, dtype=FLOAT64)
    found = on_ranks(count, of_a_sum, x)
    x.requires_grad_()
    total = x.square().mT.sum(0)
    (first,) = torch.autograd.grad(sum(objective(total, n) for n in range(count)), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(3).sum(), x)
    for n, each in enumerate(found):
        assert torch.equal(each[0], found[0][0]), "other bits on another rank"
        assert_close(each, [total.detach(), first[n].detach(), second[n]], atol=1e-12, rtol=1e-12)


def of_rows(ranks: Ranks, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    own = x.split(SHARES)[ranks.number].requires_grad_()
    rows = domains_of_ranks(own, [(share,) for share in SHARES], ranks)
    value = objective(rows.square().sum(0), ranks.number)
    (first,) = torch.autograd.grad(value, own, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(3).sum(), own)
    return rows.detach(), first.detach(), second


@pytest.mark.slow
def test_rows_of_uneven_shares_and_their_derivatives_are_those_of_one_process() -> None:
    x = torch.randn(sum(SHARES), 2, dtype=FLOAT64)
    found = on_ranks(len(SHARES), of_rows, x)
    x.requires_grad_()
    total = x.square().sum(0)
    (first,) = torch.autograd.grad(sum(objective(total, n) for n in range(len(SHARES))), x, create_graph=True)
    (second,) = torch.autograd.grad(first.pow(3).sum(), x)
    for n, (rows, by_rows, again) in enumerate(found):
        assert_close(rows, x.detach(), atol=0, rtol=0)
        assert_close(by_rows, first.detach().split(SHARES)[n], atol=1e-12, rtol=1e-12)
        assert_close(again, second.split(SHARES)[n], atol=1e-12, rtol=1e-12)


def counted(ranks: Ranks) -> list[tuple[int, ...]]:
    return counts_of_ranks((ranks.number, 10 + ranks.number), ranks)


@pytest.mark.slow
def test_counts_come_in_the_order_of_ranks() -> None:
    assert on_ranks(3, counted) == [[(0, 10), (1, 11), (2, 12)]] * 3


def left_alone(ranks: Ranks) -> str:
    """The first rank waits for others that have ended."""
    if ranks.number == 0:
        try:
            add_over_ranks(torch.ones(1), ranks)
        except RankLost as lost:
            return str(lost)
    return "ended"


@pytest.mark.slow
def test_a_lost_rank_is_one_line() -> None:
    message, *others = on_ranks(2, left_alone)
    assert others == ["ended"]
    assert message == "another process of the run is gone, or does not answer"


def test_other_errors_are_not_taken_for_a_lost_rank() -> None:
    with pytest.raises(ValueError, match="mine"), losing_ranks():
        raise ValueError("mine")


def fails_on_the_second(ranks: Ranks) -> int:
    if ranks.number == 1:
        raise ValueError("of the second")
    return 0


def hangs(ranks: Ranks) -> None:
    if ranks.number == 1:
        threading.Event().wait()


@pytest.mark.slow
def test_what_goes_wrong_on_a_rank_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"(?s)^rank 1: .*ValueError: of the second"):
        on_ranks(2, fails_on_the_second)
    with pytest.raises(AssertionError, match="rank 1: took longer than 1 s"):
        on_ranks(2, hangs, seconds=1)


def warned(ranks: Ranks) -> list[tuple[str, str]]:
    """Message and file of each warning, of observing without ranks twice, with them, and of what observes by itself."""
    head, features, labels = nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    batch = DomainBatch(features, labels, (2, 2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for given in (ranks, Ranks(), None, None):
            observe(nn.Identity(), head, batch, ranks=given)
        explain(Fishr())
        risk(head, features, labels, (2, 2))
    return [(str(warning.message), warning.filename) for warning in caught]


@pytest.mark.slow
def test_ranks_that_are_forgotten_are_warned_of_once() -> None:
    for told in on_ranks(2, warned):
        ((message, file),) = told
        assert message.startswith("observe: got no ranks in a process group of 2")
        assert "pass ranks=fishr.Ranks.of(), or ranks=fishr.Ranks()" in message
        assert file == __file__
    assert on_ranks(1, warned) == [[]]
