"""Curvature of the losses by the logits against plain second derivatives."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT
from loss_cases import EVERY_LOSS, LossCase
from torch import Tensor
from torch.testing import assert_close

from fishr.diagnostics.logit_curvature import LogitCurvature, logit_curvature


def made(case: LossCase, samples: int) -> tuple[LogitCurvature, Tensor]:
    logits, labels = 3 * torch.randn(samples, case.outputs, dtype=FLOAT64), case.labels(samples)
    whole = [
        torch.autograd.functional.hessian(lambda f, y=y: case.loss(f[None], y).sum(), row)
        for row, y in zip(logits, labels.split(1), strict=True)
    ]
    return logit_curvature(case.loss, logits, labels), torch.stack(whole)


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_every_form_is_that_of_the_second_derivatives(name: str) -> None:
    found, expected = made(EVERY_LOSS[name], 6)
    outputs = expected.shape[1]
    several = torch.randn(6, outputs, 4, dtype=FLOAT64)
    deltas = torch.randn(5, outputs, dtype=FLOAT64)
    assert_close(found.dense(), expected, **TIGHT)
    assert_close(found.diagonal(), expected.diagonal(dim1=1, dim2=2), **TIGHT)
    assert_close(found.apply(several), expected @ several, **TIGHT)
    assert_close(found.quadratics(deltas), torch.einsum("mc,ncd,md->mn", deltas, expected, deltas), **TIGHT)
    assert_close(torch.cat([part.dense() for part in found.split((1, 3, 2))]), expected, **TIGHT)


def test_inner_products_of_any_two_kinds() -> None:
    every = EVERY_LOSS.values()
    for one, other in ((one, other) for one in every for other in every if one.outputs == other.outputs):
        (a, dense_a), (b, dense_b) = made(one, 4), made(other, 3)
        assert_close(a.products(b), torch.einsum("ncd,mcd->nm", dense_a, dense_b), **TIGHT)


def test_softmax_and_logistic_curvature_do_not_depend_on_the_labels() -> None:
    for name in ("cross-entropy", "binary"):
        loss, logits = EVERY_LOSS[name].loss, torch.randn(4, EVERY_LOSS[name].outputs, dtype=FLOAT64)
        ones, zeros = torch.ones(4, dtype=torch.long), torch.zeros(4, dtype=torch.long)
        assert_close(logit_curvature(loss, logits, ones).dense(), logit_curvature(loss, logits, zeros).dense())
