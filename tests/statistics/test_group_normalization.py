"""Group normalization against torch's: values and derivatives of three orders."""

import pytest
import torch
from cases import EXACT, FLOAT64
from torch import Tensor
from torch.nn import functional
from torch.testing import assert_close

from fishr.observation import observe
from fishr.penalties import Fishr
from fishr.statistics import group_normalization
from fishr.statistics.group_normalization import FusedGroupNorm, group_norm
from fishr.types import DomainBatch


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (2, 4, 3, 2)])
def test_derivatives_are_those_of_torch(shape: tuple[int, ...], affine: bool) -> None:
    x = torch.randn(shape, dtype=FLOAT64, requires_grad=True)
    parameters = [torch.randn(4, dtype=FLOAT64, requires_grad=True) for _ in range(2)] if affine else []
    given, weights = [x, *parameters], torch.randn(shape, dtype=FLOAT64)

    def all_derivatives(norm: object, seen: tuple[int, ...]) -> list[Tensor]:
        assert callable(norm)
        y = norm(x, 2, *(parameters or (None, None)), 0.1)
        first = torch.autograd.grad((y.tanh() * weights).sum(), given, create_graph=True)
        total = sum((first[i].sin() * (i + 1)).sum() for i in seen)
        second = torch.autograd.grad(total, given, retain_graph=True, allow_unused=True)
        third = torch.autograd.grad(total, given, create_graph=True, allow_unused=True)
        again = torch.autograd.grad(sum(t.square().sum() for t in third if t is not None), given, allow_unused=True)
        return [t for t in (y, *first, *second, *third, *again) if t is not None]

    for seen in [(0,), (0, 1, 2), (1,)] if affine else [(0,)]:
        found, expected = (all_derivatives(norm, seen) for norm in (group_norm, functional.group_norm))
        assert_close(found, expected, **EXACT)


def test_layers_within_the_mode_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_normalization, "_DEVICES", {"cpu"})
    layer, x = torch.nn.GroupNorm(2, 4), torch.randn(3, 4, 5, requires_grad=True)
    with FusedGroupNorm():
        y = layer(x)
    assert "_GroupNormBackward" in type(y.grad_fn).__name__
    assert_close(y, layer(x))


def test_a_penalty_on_all_layers_has_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    featurizer = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 2), torch.nn.GroupNorm(2, 4), torch.nn.Tanh())
    featurizer.append(torch.nn.Flatten()).to(FLOAT64)
    head = torch.nn.Linear(16, 3, dtype=FLOAT64)
    batch = DomainBatch(torch.randn(6, 2, 3, 3, dtype=FLOAT64), torch.randint(3, (6,)), (2, 4))
    found = list[tuple[Tensor, ...]]()
    for devices in ({"cpu"}, set[str]()):
        monkeypatch.setattr(group_normalization, "_DEVICES", devices)
        value, _ = Fishr()(observe(featurizer, head, batch, layers=("featurizer", "head")), (), 0)
        found.append(torch.autograd.grad(value, [*featurizer.parameters(), *head.parameters()]))
    assert found[0][2].abs().max() > 1e-8
    assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)
