"""Moments a few samples at a time against all at once: values, first and second derivatives, random draws, memory."""

import pytest
import torch
from cases import EXACT, FLOAT64, assert_same_moments
from memory import peak_of_live_tensors
from torch import Tensor
from torch.testing import assert_close

from fishr.statistics.chunked_moments import Chunking, chunked_moments
from fishr.statistics.merge import moments_of_samples

SIZES = (2, 2, 1, 3)


def outer(rows: list[Tensor], shared: list[Tensor]) -> Tensor:
    left, right = rows
    return torch.tanh(left.unsqueeze(2) * shared[0]) * right.unsqueeze(1)


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    shapes = (8, 3), (8, 2), (3, 1)
    left, right, shared = (torch.randn(shape, dtype=FLOAT64, requires_grad=True) for shape in shapes)
    return left, right, shared


def at_once(left: Tensor, right: Tensor, shared: Tensor) -> tuple[Tensor, Tensor]:
    domains = outer([left, right], [shared]).split(list(SIZES))
    mean = torch.stack([g.mean(0) for g in domains])
    return mean, torch.stack([g.var(0, unbiased=False) for g in domains])


@pytest.mark.parametrize("step", [1, 2, 3, 4, 100])
def test_chunks_are_the_whole_in_value_and_derivatives(step: int) -> None:
    given = tensors()
    plan = Chunking(outer, SIZES, step, FLOAT64)
    found, expected = chunked_moments(plan, given[:2], given[2:]), at_once(*given)
    assert_same_moments(found, expected, given)


def test_second_derivatives_are_there() -> None:
    given = tensors()
    plan = Chunking(outer, SIZES, 2, FLOAT64)

    def moments(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return chunked_moments(plan, tensors[:2], tensors[2:])

    assert torch.autograd.gradgradcheck(moments, given)


def test_tensors_that_need_no_gradient_get_none() -> None:
    left, right, shared = tensors()
    shared = shared.detach()
    plan = Chunking(outer, SIZES, 2, FLOAT64)
    found, expected = chunked_moments(plan, [left, right], [shared])[1], at_once(left, right, shared)[1]
    by_found, by_expected = (torch.autograd.grad(v.sum(), [left, right]) for v in (found, expected))
    assert_close(by_found, by_expected, **EXACT)
    assert not chunked_moments(plan, [left.detach(), right.detach()], [shared])[1].requires_grad


def test_sums_are_taken_in_the_type_that_is_asked_for() -> None:
    rows = [torch.tensor([[1000.0], [1000.1], [1000.2]], requires_grad=True)]
    plan = Chunking(lambda rows, _: rows[0] * 1.0, (3,), 2, FLOAT64)
    _, variance = chunked_moments(plan, rows)
    assert_close(variance[0], rows[0].detach().double().var(0, unbiased=False), **EXACT)
    variance.sum().backward()
    assert rows[0].grad is not None
    assert rows[0].grad.dtype is torch.float32


@pytest.mark.parametrize("twice", [False, True])
def test_random_draws_are_the_same_in_the_backward_pass_and_disturb_nothing(twice: bool) -> None:
    def noisy(rows: list[Tensor], shared: list[Tensor]) -> Tensor:
        return outer(rows, shared) * torch.rand_like(rows[0]).unsqueeze(2)

    given = tensors()
    plan = Chunking(noisy, SIZES, 2, FLOAT64, random=True)
    torch.manual_seed(3)
    _, variance = chunked_moments(plan, given[:2], given[2:])
    after = torch.rand(1)
    found = torch.autograd.grad(variance.sum(), given, create_graph=twice)
    then = torch.rand(1)
    torch.manual_seed(3)
    chunks = [[slice(0, 2)], [slice(2, 4)], [slice(4, 5)], [slice(5, 7), slice(7, 8)]]
    drawn = [[noisy([t[c] for t in given[:2]], list(given[2:]))[None] for c in of] for of in chunks]
    expected = torch.autograd.grad(sum(moments_of_samples(parts)[1].sum() for parts in drawn), given)
    assert_close(found, expected, **EXACT)
    assert_close((after, then), (torch.rand(1), torch.rand(1)), atol=0.0, rtol=0.0)


@pytest.mark.parametrize("backward", [False, True])
def test_memory_does_not_grow_by_samples_times_parameters(backward: bool) -> None:
    """What all samples' gradients at once take shows that the measure sees them."""

    def growth(chunked: bool) -> float:
        def step(samples: int) -> None:
            left, right = torch.randn(samples, 50, requires_grad=True), torch.randn(samples, 40)
            shared = torch.randn(50, 1, requires_grad=True)
            plan = Chunking(outer, (samples,), 2 if chunked else samples, torch.float32)
            with torch.set_grad_enabled(backward):
                _, variance = chunked_moments(plan, [left, right], [shared])
            if backward:
                variance.sum().backward()

        return (peak_of_live_tensors(step, 24) - peak_of_live_tensors(step, 8)) / 16

    elements = 50 * 40
    assert growth(chunked=True) < elements / 5
    assert growth(chunked=False) > elements
