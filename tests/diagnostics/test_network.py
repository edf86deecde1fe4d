"""Whole networks: the same quantities over all parameters."""

import pytest
import torch
from cases import FLOAT64
from diagnostics.dense import Dense
from torch import nn

from fishr.diagnostics import Estimation, dense_hessian, measure_network
from fishr.losses import BinaryCrossEntropy, CrossEntropy


class Residual(nn.Module):
    """No chain of layers: BackPACK cannot follow it."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(inputs))
        return self.last(hidden + torch.tanh(self.second(hidden)))


@pytest.mark.parametrize("loss", [CrossEntropy(), BinaryCrossEntropy()])
def test_estimates_and_exact_matrices_agree_within_the_stated_errors(
    loss: CrossEntropy, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = 3 if isinstance(loss, CrossEntropy) else 2
    network = Residual(outputs).to(FLOAT64)
    labels = torch.randint(3, (50,)) if outputs == 3 else torch.randint(2, (50, 2))
    case = Dense(network, torch.randn(50, 4, dtype=FLOAT64), labels, (30, 20), loss)
    exact = measure_network(*case.arguments, rank=3, ridge=0.05)
    assert all(exact[name].error is None for name in ("hessian_diagonal", "hessian_trace", "effective_rank"))
    monkeypatch.setattr(dense_hessian, "WHOLE_LIMIT", 10)
    found = measure_network(*case.arguments, rank=3, ridge=0.05, estimation=Estimation(16, 4, chunk=40))
    for name in ("hessian_trace", "effective_rank", "top_eigenvalues"):
        assert ((found[name].value - exact[name].value).abs() <= 6 * found[name].error + 1e-9).all(), name
    diagonal = found["hessian_diagonal"]
    assert (diagonal.value - case.diagonals).norm() <= 2 * diagonal.error.norm()
    assert found["takeuchi"].error is not None
    assert found["spectral_density"].error is not None
    assert all(p.grad is None for p in network.parameters())


def test_an_estimate_is_the_same_twice() -> None:
    network = nn.Sequential(nn.Linear(40, 60), nn.GELU(), nn.Linear(60, 3)).to(FLOAT64)
    data = (network, torch.randn(20, 40, dtype=FLOAT64), torch.randint(3, (20,)), (8, 12))
    spend = Estimation(products=6, repeats=2)
    first, second = (measure_network(*data, rank=2, ridge=0.1, estimation=spend) for _ in range(2))
    for name, quantity in first.items():
        assert torch.equal(quantity.value, second[name].value), name
        assert quantity.error is not None, name
