"""The closed form of a linear head, which is also what ``torch.func`` transforms go through."""

import pytest
import torch
from cases import EXACT, FLOAT64
from torch import Tensor, nn
from torch.testing import assert_close

from fishr.errors import InputError
from fishr.statistics.linear_heads import has_bias, is_plain_linear, linear_gram, linear_moments

SIZES = (2, 4)


@pytest.mark.parametrize("bias", [True, False])
def test_moments_are_those_of_the_outer_products(bias: bool) -> None:
    deltas, features = torch.randn(6, 2, dtype=FLOAT64), torch.randn(6, 3, dtype=FLOAT64)
    rows = [torch.outer(d, z).flatten() for d, z in zip(deltas, features, strict=True)]
    gradients = torch.stack([torch.cat([row, d]) if bias else row for row, d in zip(rows, deltas, strict=True)])
    moments = linear_moments(deltas, features, SIZES, bias)
    domains = gradients.split(list(SIZES))
    assert_close(moments.mean, torch.stack([g.mean(0) for g in domains]), **EXACT)
    assert_close(moments.variance, torch.stack([g.var(0, unbiased=False) for g in domains]), **EXACT)
    assert moments.layout.names == (("weight", "bias") if bias else ("weight",))
    assert moments.layout.size == moments.mean.shape[1]


def test_many_heads_in_one_tensor_program() -> None:
    deltas, features = torch.randn(5, 6, 2, dtype=FLOAT64), torch.randn(6, 3, dtype=FLOAT64)

    def value(deltas: Tensor) -> Tensor:
        return linear_moments(deltas, features, SIZES).variance.square().sum()

    assert_close(torch.func.vmap(value)(deltas), torch.stack([value(d) for d in deltas]), **EXACT)
    assert_close(
        torch.func.vmap(torch.func.grad(value))(deltas), torch.stack([torch.func.grad(value)(d) for d in deltas])
    )


def test_what_a_plain_linear_head_is() -> None:
    assert is_plain_linear(nn.Linear(3, 2))
    assert is_plain_linear(nn.Linear(3, 2, bias=False))
    assert not has_bias(nn.Linear(3, 2, bias=False))
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    hooked = nn.Linear(3, 2)
    hooked.register_forward_pre_hook(lambda module, inputs: None)
    half = nn.Linear(3, 2)
    half.weight.requires_grad_(False)
    for head in (nn.Sequential(nn.Linear(3, 2)), parametrized, hooked, half, nn.Identity()):
        assert not is_plain_linear(head)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="sizes: got"):
        linear_moments(torch.randn(6, 2), torch.randn(6, 3), (3, 4))


@pytest.mark.parametrize("bias", [True, False])
def test_gram_matrix_of_outer_products(bias: bool) -> None:
    deltas, features = torch.randn(4, 2, dtype=FLOAT64), torch.randn(4, 3, dtype=FLOAT64)
    parts = [torch.einsum("nc,nf->ncf", deltas, features).flatten(1), deltas]
    gradients = torch.cat(parts if bias else parts[:1], 1)
    assert_close(linear_gram(deltas, features, bias), gradients @ gradients.T, **EXACT)
