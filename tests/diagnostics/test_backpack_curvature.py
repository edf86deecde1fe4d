"""BackPACK's diagonals with its factors put right, and what it leaves behind: nothing."""

import pytest
import torch
from backpack.context import CTX
from cases import FLOAT64, HEADS
from diagnostics.dense import TIGHT, dense
from loss_cases import LOSSES
from torch import nn
from torch.testing import assert_close

from fishr.diagnostics import backpack_curvature
from fishr.diagnostics.backpack_curvature import backpack_diagonal, has_backpack_curvature
from fishr.losses import BinaryCrossEntropy, CrossEntropy

KNOWN = ("two layers", "in-place activation", "frozen first layer", "conv1d", "conv2d", "linear in a sequence")


@pytest.mark.parametrize("head", KNOWN)
@pytest.mark.parametrize("loss", ["cross-entropy", "binary"])
@pytest.mark.parametrize("elements", [1, 1 << 24])
def test_both_diagonals_are_those_of_the_dense_matrices(
    head: str, loss: str, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backpack_curvature, "_ELEMENTS", elements)  # one sample at a time, or all at once
    case = dense(head, loss, (2, 3))
    assert has_backpack_curvature(case.head, case.features, case.labels, case.loss)
    whole = list(zip(case.hessians, case.gauss_newtons, strict=True))
    for (features, labels), (hessian, gauss_newton) in zip(case.parts, whole, strict=True):
        for kind, matrix in (("hessian", hessian), ("ggn", gauss_newton)):
            found = backpack_diagonal(case.head, features, labels, case.loss, kind)
            assert_close(found, matrix.diagonal(), **TIGHT)


def test_smooth_activations_have_a_hessian_that_is_not_the_gauss_newton_matrix() -> None:
    case = dense("conv1d", "cross-entropy", (2, 3))
    features, labels = case.parts[1]
    both = [backpack_diagonal(case.head, features, labels, case.loss, kind) for kind in ("hessian", "ggn")]
    assert (both[0] - both[1]).abs().max() > 1e-4


def test_nothing_is_left_on_the_head_or_in_backpack() -> None:
    case = dense("two layers", "cross-entropy", (2, 3))
    before = [set(dir(p)) for p in case.head.parameters()], [set(vars(m)) for m in case.head.modules()]
    hooks = len(CTX.hook_handles)
    backpack_diagonal(case.head, *case.parts[1], case.loss, "hessian")
    assert before == ([set(dir(p)) for p in case.head.parameters()], [set(vars(m)) for m in case.head.modules()])
    assert all(p.grad is None for p in case.head.parameters())
    assert len(CTX.hook_handles) == hooks
    assert CTX.active_exts == ()


def test_heads_and_losses_that_it_has_no_diagonal_for() -> None:
    features, shared, hooked = torch.zeros(2, 3, dtype=FLOAT64), nn.Linear(3, 3).double(), nn.Linear(3, 2).double()
    hooked.register_forward_hook(lambda module, inputs, output: 2 * output)
    relu, labels = nn.ReLU(), torch.zeros(2, dtype=torch.int64)
    tied = nn.Sequential(nn.Linear(3, 3).double(), nn.ReLU(), nn.Linear(3, 3).double())
    tied[2].weight = tied[0].weight
    for head in (
        nn.Linear(3, 2).double(),
        nn.Sequential(shared, shared),
        nn.Sequential(shared, relu, nn.Linear(3, 3).double(), relu),
        nn.Sequential(hooked),
        tied,
        HEADS["three layers"].head(2),
        HEADS["tokens"].head(2),
        HEADS["batch norm"].head(2),
    ):
        assert not has_backpack_curvature(head, features, labels, CrossEntropy())
    chain = HEADS["two layers"].head(2)
    assert has_backpack_curvature(chain, features, labels, CrossEntropy())
    assert not has_backpack_curvature(chain, features.unsqueeze(1), labels, CrossEntropy())
    assert not has_backpack_curvature(chain, features, labels, BinaryCrossEntropy())
    assert not has_backpack_curvature(chain, features, torch.full((2, 2), 0.5), CrossEntropy())
    for loss in (CrossEntropy(0.1), CrossEntropy(class_weights=(1.0, 2.0)), BinaryCrossEntropy((2.0,))):
        assert not has_backpack_curvature(HEADS["two layers"].head(loss.outputs(2)), features, labels, loss)
    assert not has_backpack_curvature(chain, features, labels, LOSSES["squared"].loss)
