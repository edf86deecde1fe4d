"""Agreement of the domains' gradients."""

import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch import nn
from torch.testing import assert_close

from fishr.diagnostics import (
    gradient_cosines,
    gradient_products,
    gradient_spread,
    sign_agreement,
    transfer,
    transfer_second_order,
)


def test_they_are_those_of_the_mean_gradients(case: Dense) -> None:
    seen, g = case.curvature, case.means
    products = torch.stack([torch.stack([(a * b).sum() for b in g]) for a in g])
    norms = torch.stack([torch.stack([a.norm() * b.norm() for b in g]) for a in g])
    assert_close(gradient_products.of(seen).value, products, **TIGHT)
    assert_close(gradient_cosines.of(seen).value, products / norms, **TIGHT)
    assert_close(gradient_spread.of(seen).value, sum((a - g.mean(0)).square().sum() for a in g), **TIGHT)


def test_the_share_of_signs_that_agree() -> None:
    """Gradients of −f·y by the weights are −mean(y z): chosen through the features."""
    head = nn.Linear(4, 1, bias=False).double()
    features = torch.tensor([[1.0, 2.0, -1.0, 0.0], [3.0, -1.0, -2.0, 0.0], [2.0, 5.0, -1.0, 0.0]]).double()
    found = sign_agreement(head, features, torch.ones(3).double(), (1, 1, 1), lambda f, y: -f.squeeze(1) * y)
    assert_close(found.value, torch.tensor(0.5).double())  # not the second, and a zero agrees with nothing


def test_a_single_domain_agrees_with_itself() -> None:
    head, data = nn.Linear(3, 2), (torch.randn(4, 3), torch.tensor([0, 1, 1, 0]), (4,))
    assert sign_agreement(head, *data).value == 1
    assert gradient_spread(head, *data).value == 0


ETA = 0.3


def test_the_step_and_its_second_order_are_those_of_the_definitions(case: Dense) -> None:
    order = range(len(case.sizes))
    exact = [[case.risk(case.flat - ETA * case.means[a], b) - case.risks[b] for b in order] for a in order]
    second = [
        [
            -ETA * case.means[a] @ case.means[b] + ETA**2 / 2 * case.means[a] @ case.hessians[b] @ case.means[a]
            for b in order
        ]
        for a in order
    ]
    assert_close(transfer.of(case.curvature, eta=ETA).value, torch.tensor(exact).double(), **TIGHT)
    assert_close(transfer_second_order.of(case.curvature, eta=ETA).value, torch.tensor(second).double(), **TIGHT)


def test_second_order_leaves_an_error_of_third_order() -> None:
    seen = dense("linear", "cross-entropy", (30, 12)).curvature
    errors = [
        (transfer.of(seen, eta=eta).value - transfer_second_order.of(seen, eta=eta).value).abs().max()
        for eta in (0.1, 0.05)
    ]
    assert 6 < errors[0] / errors[1] < 10
