"""Risks at moved parameters."""

import torch
from diagnostics.dense import TIGHT, Dense
from torch.testing import assert_close

from fishr.diagnostics.displacement import risks_at


def test_they_are_those_of_a_head_that_was_moved(case: Dense) -> None:
    step = torch.randn_like(case.flat).requires_grad_()
    moved = (case.flat + step.detach()).requires_grad_()
    expected = torch.stack([case.risk(moved, domain) for domain in range(len(case.sizes))])
    found = risks_at(case.seen, step)
    assert_close(found, expected, **TIGHT)
    (by_step,) = torch.autograd.grad(found[0], [step])
    (by_parameters,) = torch.autograd.grad(expected[0], [moved])
    assert_close(by_step, by_parameters, **TIGHT)
    assert all(p.grad is None for p in case.head.parameters())
