"""The quantile of RSC, against a sort to the bit and ``torch.quantile``."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fishr.methods.rsc import by_selection, by_sort, quantile

SHARES = torch.tensor([0.0, 0.3, 1 / 3, 0.5, 0.75, 0.999, 1.0])


def values_of(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values of which many are equal."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).relu()


def slow(values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    place, ordered = share * (values.shape[-1] - 1), values.sort(-1).values
    found = torch.lerp(ordered[..., int(place.floor())], ordered[..., int(place.ceil())], place - place.floor())
    assert torch.allclose(found, values.quantile(share, -1), atol=1e-6)
    return found.unsqueeze(-1)


@given(st.integers(1, 9), st.integers(0, 100), st.floats(0, 1, width=32))
def test_it_is_that_of_a_sort(size: int, seed: int, share: float) -> None:
    values, whole = values_of(3, size, seed=seed), torch.tensor(share)
    assert torch.equal(quantile(values, whole), slow(values, whole))


@pytest.mark.parametrize("axis", [0, 1])
def test_heads_have_shares_of_their_own(axis: int) -> None:
    values = values_of(len(SHARES), 4, 9)
    expected = torch.stack([*map(slow, values, SHARES)])
    assert torch.equal(torch.func.vmap(quantile, (axis, 0))(values.movedim(0, axis), SHARES), expected)
    shared = torch.func.vmap(quantile, (axis, None))(values.movedim(0, axis), SHARES[1])
    assert torch.equal(shared, slow(values, SHARES[1]))


@pytest.mark.parametrize(("below", "above"), [(0, 0), (0, 1), (4, 5), (8, 8)])
def test_the_selection_finds_what_a_sort_does(below: int, above: int) -> None:
    values = values_of(5, 9)
    values[0, 3:5] = torch.tensor([torch.nan, torch.inf])
    expected = by_sort(values, torch.tensor([[below]]), torch.tensor([[above]]))
    for got, wanted in zip(by_selection(values, below, above), expected, strict=True):
        assert torch.equal(got.nan_to_num(-1.0), wanted.nan_to_num(-1.0))
