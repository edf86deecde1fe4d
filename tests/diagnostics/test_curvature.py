"""What diagnostics share, which Hessian is chosen, and what is refused."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import TIGHT, Dense, dense
from loss_cases import LOSSES
from torch import nn
from torch.testing import assert_close

import fishr.diagnostics
from fishr.diagnostics import Curvature, Estimation, Quantity, hessian_diagonal, top_eigenvalues
from fishr.diagnostics.hessian import DenseHessian
from fishr.diagnostics.linear_hessian import LinearHessian
from fishr.diagnostics.measurement import measure
from fishr.diagnostics.operator_hessian import OperatorHessian
from fishr.errors import InputError
from fishr.observation import observe
from fishr.types import DomainBatch


def test_everything_shared_is_that_of_the_dense_oracle(case: Dense) -> None:
    curvature = case.curvature
    seen = curvature.seen
    assert_close(seen.domain_losses, case.risks, **TIGHT)
    assert_close(seen.moments.mean, case.means, **TIGHT)
    assert_close(seen.moments.variance, case.variances, **TIGHT)
    assert_close(curvature.hessian_diagonals.value, case.diagonals, **TIGHT)
    flat = torch.stack(case.hessians).flatten(1)
    assert_close(curvature.hessian_products.value, flat @ flat.T, **TIGHT)
    assert_close(curvature.squared_norms.value, flat.square().sum(1), **TIGHT)
    assert curvature.hessian_diagonals.error is curvature.squared_norms.error is None


def test_nothing_has_a_graph_and_nothing_is_left_on_the_head(case: Dense) -> None:
    before = [set(dir(p)) for p in case.head.parameters()]
    curvature = case.curvature
    seen = curvature.seen
    for tensor in (seen.logits, seen.losses, seen.deltas, seen.gram, seen.domain_losses, seen.moments.variance):
        assert not tensor.requires_grad
    assert not curvature.hessian_diagonals.value.requires_grad
    assert [set(dir(p)) for p in case.head.parameters()] == before
    assert all(p.grad is None for p in case.head.parameters())


def test_a_hessian_is_held_in_the_cheapest_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {type(h) for h in dense("linear", "squared", (1, 5, 2)).curvature.hessians} == {LinearHessian}
    assert {type(h) for h in dense("two layers", "squared", (4, 4)).curvature.hessians} == {DenseHessian}
    monkeypatch.setattr("fishr.diagnostics.hessian.WHOLE_LIMIT", 10)
    assert {type(h) for h in dense("two layers", "squared", (4, 4)).curvature.hessians} == {OperatorHessian}


def test_a_quantity_reads_a_shared_view_or_the_data() -> None:
    case = dense("linear", "cross-entropy", (4, 4))
    seen = case.curvature
    direct, shared = hessian_diagonal(*case.arguments), hessian_diagonal.of(seen)
    assert torch.equal(direct.value, shared.value)
    assert isinstance(shared, Quantity)
    few = top_eigenvalues.of(seen, rank=2).value
    more = top_eigenvalues.of(seen, rank=4).value
    assert_close(more[:, :2], few, **TIGHT)
    assert torch.equal(top_eigenvalues.of(seen, rank=2).value, more[:, :2])
    spent = top_eigenvalues(*case.arguments, Estimation(seed=3), rank=2)
    assert_close(spent.value, few, **TIGHT)


def test_the_view_of_a_training_step_has_the_curvature_of_its_head() -> None:
    featurizer, head = nn.Linear(5, 3).to(FLOAT64), nn.Linear(3, 3).to(FLOAT64)
    inputs, labels = torch.randn(8, 5, dtype=FLOAT64), LOSSES["cross-entropy"].labels(8)
    seen = observe(featurizer, head, DomainBatch(inputs, labels, (3, 5)))
    found = hessian_diagonal.of(seen)
    expected = hessian_diagonal(head, featurizer(inputs).detach(), labels, (3, 5))
    assert_close(found.value, expected.value, **TIGHT)
    assert not found.value.requires_grad
    assert seen.logits.requires_grad
    whole = observe(featurizer, head, seen.batch, layers=("featurizer", "head"))
    with pytest.raises(InputError, match=r"layers: got \('featurizer', 'head'\), expected the head's alone"):
        Curvature(whole)


def test_rows_in_any_order_within_a_domain_give_the_same() -> None:
    case = dense("linear", "cross-entropy", (30, 12))
    order = torch.cat([torch.randperm(30), 30 + torch.randperm(12)])
    other = Curvature.of(case.head, case.features[order], case.labels[order], case.sizes, case.loss)
    assert_close(other.seen.moments.variance, case.curvature.seen.moments.variance, **TIGHT)
    assert_close(other.hessian_products.value, case.curvature.hessian_products.value, **TIGHT)


def test_a_head_that_does_not_give_the_same_answer_twice_is_refused() -> None:
    features, labels = torch.randn(4, 3, dtype=FLOAT64), LOSSES["cross-entropy"].labels(4)
    noisy = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 3)).to(FLOAT64)
    with pytest.raises(InputError, match=r"head layer '0': Dropout draws at random in train mode.*\.eval\(\)"):
        Curvature.of(noisy, features, labels, (2, 2))
    Curvature.of(noisy.eval(), features, labels, (2, 2))
    mixing = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3)).to(FLOAT64)
    with pytest.raises(InputError, match="batch statistics mix the samples"):
        Curvature.of(mixing, features, labels, (2, 2))


def test_sizes_that_do_not_fit_and_frozen_heads_are_refused() -> None:
    features, labels = torch.randn(4, 3), LOSSES["cross-entropy"].labels(4)
    with pytest.raises(InputError, match="sizes: got"):
        Curvature.of(nn.Linear(3, 3), features, labels, (2, 3))
    with pytest.raises(InputError, match="no parameter that requires grad"):
        Curvature.of(nn.Linear(3, 3).requires_grad_(False), features, labels, (2, 2))


@pytest.mark.parametrize("head", [nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))])
def test_labels_that_the_loss_does_not_take_are_refused_by_every_quantity(head: nn.Module) -> None:
    """Curvature in closed form does not depend on the labels, and BackPACK's ended in torch's IndexError."""
    for name in fishr.diagnostics.NAMES:
        with pytest.raises(InputError, match="got labels from 1 to 3, expected whole numbers from 0 to 2"):
            measure(head, torch.randn(4, 3), torch.tensor([1, 2, 3, 1]), (2, 2), names=(name,))


def test_they_are_those_of_a_head_that_was_moved(case: Dense) -> None:
    step = torch.randn_like(case.flat).requires_grad_()
    moved = (case.flat + step.detach()).requires_grad_()
    expected = torch.stack([case.risk(moved, domain) for domain in range(len(case.sizes))])
    found = case.curvature.risks_at(step)
    assert_close(found, expected, **TIGHT)
    (by_step,) = torch.autograd.grad(found[0], [step])
    (by_parameters,) = torch.autograd.grad(expected[0], [moved])
    assert_close(by_step, by_parameters, **TIGHT)
    assert all(p.grad is None for p in case.head.parameters())


def test_the_first_domains_share_what_is_known_of_each() -> None:
    case = dense("two layers", "cross-entropy", (1, 5, 2))
    whole = case.curvature
    first, tops = whole.first(2), whole.tops(3)
    alone = Curvature.of(case.head, case.features[:6], case.labels[:6], (1, 5), case.loss)
    assert first.hessians == whole.hessians[:2]
    assert all(torch.equal(one.values, other.values) for one, other in zip(first.tops(3), tops, strict=False))
    assert_close(first.seen.moments.variance, alone.seen.moments.variance, **TIGHT)
    together = fishr.diagnostics.inconsistency_second_order
    assert_close(together.of(first).value, together.of(alone).value, **TIGHT)
