"""Moments of sequences of linear layers, against the route of any head."""

from itertools import count, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.losses import CrossEntropy, loss_deltas
from fishr.statistics import distance_to_mean, gradient_moments
from fishr.statistics.domain_moments import GradientMoments
from fishr.statistics.linear_heads import is_linear_stack, stack_factors, stack_inputs, stacked_moments

SIZES = (2, 4)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Linear(3, 5, bias=False), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    return nn.Sequential(*layers).double()


def moments_of(
    head: nn.Sequential, features: Tensor, labels: Tensor, sizes: tuple[int, ...], weights: Tensor | None = None
) -> GradientMoments:
    logits, read = stack_inputs(head, features)
    factors = stack_factors(head, read, loss_deltas(CrossEntropy(), logits, labels))
    return stacked_moments(head, factors, sizes, weights)


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2, 1, 1])


def test_moments_and_gradients_are_those_of_torch_func() -> None:
    head, (features, labels), found = network(0), samples(), []
    for moments in (
        moments_of(head, features, labels, SIZES),
        gradient_moments(head, features, labels, SIZES, route="functional"),
    ):
        gap = distance_to_mean(moments.variance) + moments.mean.square().sum()
        found.append((moments.mean, moments.variance, moments.layout, torch.autograd.grad(gap, [*head.parameters()])))
    assert_close(found[0][:2], found[1][:2])
    assert found[0][2] == found[1][2]
    assert_close(found[0][3], found[1][3])


FUNCTIONS = (nn.ReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Identity)


@given(st.lists(st.sampled_from([nn.Linear, *FUNCTIONS]), max_size=5), st.integers(0, 5))
def test_layers_may_come_in_any_order(kinds: list[type[nn.Module]], place: int) -> None:
    torch.manual_seed(0)
    kinds.insert(place, nn.Linear)
    widths = pairwise(count(3))  # layers of different widths
    head = nn.Sequential(*(kind(*next(widths)) if kind is nn.Linear else kind() for kind in kinds)).double()
    (features, labels), found = samples(), []
    for route in ("closed_form", "functional"):
        moments = gradient_moments(head, features, labels, SIZES, route=route)  # type: ignore[arg-type]
        found.append(
            (moments.mean, moments.variance, torch.autograd.grad(moments.variance.sum(), [*head.parameters()]))
        )
    assert_close(found[0], found[1])


def test_samples_of_weight_0_change_nothing() -> None:
    head, (features, labels) = network(0), samples()
    # Two domains of one and three samples, and of three and one that fill them.
    weights, fewer = torch.tensor([2.0, 0.0, 4 / 3, 4 / 3, 4 / 3, 0.0], dtype=torch.float64), [0, 2, 3, 4]
    moments = moments_of(head, features, labels, SIZES, weights)
    expected = moments_of(head, features[fewer], labels[fewer], (1, 3))
    assert_close((moments.mean, moments.variance), (expected.mean, expected.variance))


@pytest.mark.parametrize("last", [nn.BatchNorm1d(3), nn.Softmax(dim=0), nn.Linear(3, 3).requires_grad_(False)])
def test_other_layers_are_no_stack(last: nn.Module) -> None:
    assert is_linear_stack(network(0))
    assert not is_linear_stack(nn.Sequential(*network(0), last))
    hooked = network(0)
    hooked[0].register_forward_hook(lambda *_: None)
    assert not is_linear_stack(hooked)
