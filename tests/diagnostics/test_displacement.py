"""Risks at moved parameters."""

import copy

import torch
from diagnostics.dense import TIGHT, Dense
from torch.testing import assert_close

from fishr.diagnostics.displacement import risks_at


def test_they_are_those_of_a_head_that_was_moved(case: Dense) -> None:
    step = torch.randn_like(case.flat).requires_grad_()
    moved = copy.deepcopy(case.head)
    trainable = [p for p in moved.parameters() if p.requires_grad]
    torch.nn.utils.vector_to_parameters(case.flat + step.detach(), trainable)
    expected = torch.stack([case.loss(moved(z), y).mean() for z, y in case.parts])
    found = risks_at(case.seen, step)
    assert_close(found, expected, **TIGHT)
    (by_step,) = torch.autograd.grad(found[0], [step])
    by_parameters = torch.autograd.grad(expected[0], trainable)
    assert_close(by_step, torch.cat([g.flatten() for g in by_parameters]), **TIGHT)
    assert all(p.grad is None for p in case.head.parameters())
