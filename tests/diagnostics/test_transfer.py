"""Steps down one domain's gradient, seen from the others."""

import torch
from diagnostics.dense import TIGHT, Dense, dense
from torch.testing import assert_close

from fishr.diagnostics import transfer, transfer_second_order

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
    assert_close(transfer.of(case.seen, eta=ETA).value, torch.tensor(exact).double(), **TIGHT)
    assert_close(transfer_second_order.of(case.seen, eta=ETA).value, torch.tensor(second).double(), **TIGHT)


def test_second_order_leaves_an_error_of_third_order() -> None:
    seen = dense("linear", "cross-entropy", (30, 12)).seen
    errors = [
        (transfer.of(seen, eta=eta).value - transfer_second_order.of(seen, eta=eta).value).abs().max()
        for eta in (0.1, 0.05)
    ]
    assert 6 < errors[0] / errors[1] < 10
