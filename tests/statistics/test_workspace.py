"""Memory that is used again: by one thread, in and out of inference mode, and never by two tensors that are in use."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import EXACT, FLOAT64
from gaps import linear_gap
from torch import Tensor
from torch.testing import assert_close

from fishr.statistics import gap_blocks
from fishr.statistics.gap_blocks import GapRule, workspace


def test_a_thread_gets_its_own_memory_again() -> None:
    like = torch.zeros(1)
    first = workspace(like, 50)
    assert workspace(like, 30).data_ptr() == first.data_ptr()
    assert workspace(like.double(), 50).dtype is FLOAT64
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(workspace, like, 50).result().data_ptr() != first.data_ptr()
    assert len(workspace(like, 90)) == 90


def test_memory_from_inference_mode_serves_outside_of_it() -> None:
    def add() -> Tensor:
        with torch.inference_mode():
            workspace(torch.zeros(1), 5)
        return workspace(torch.zeros(1), 5).zero_().add_(1)

    with ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(add).result(), torch.ones(5))


def step(deltas: Tensor, features: Tensor) -> list[Tensor]:
    rows = deltas.clone().requires_grad_(), features.clone().requires_grad_()
    value, _ = linear_gap(*rows, (3, 4), GapRule())
    return [value, *torch.autograd.grad(value, rows)]


def test_a_distance_in_blocks_is_the_same_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two graphs at a time, other threads, and inference mode before."""
    monkeypatch.setitem(gap_blocks._BLOCK, "cpu", 16)
    monkeypatch.setattr(gap_blocks, "_SIDE", 2)
    monkeypatch.setattr(gap_blocks, "_LINE", 1)
    problems = [(torch.randn(7, 5, dtype=FLOAT64), torch.randn(7, 6, dtype=FLOAT64)) for _ in range(6)]
    with torch.inference_mode():
        linear_gap(*problems[0], (3, 4), GapRule())
    expected = [step(*problem) for problem in problems]
    rows = [tuple(x.clone().requires_grad_() for x in problem) for problem in problems]
    values = [linear_gap(*pair, (3, 4), GapRule())[0] for pair in rows]
    together = [[v, *torch.autograd.grad(v, pair)] for v, pair in zip(values, rows, strict=True)]
    assert_close(together, expected, **EXACT)
    with ThreadPoolExecutor(3) as pool:
        assert_close(list(pool.map(lambda pair: step(*pair), problems)), expected, **EXACT)
