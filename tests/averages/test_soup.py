"""Means of several models' weights against sums by hand."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.testing import assert_close

import fishr
from fishr.averages import average_weights
from fishr.errors import InputError

numbers = st.floats(-1e6, 1e6, width=32)
models = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.lists(numbers, min_size=size, max_size=size), min_size=1, max_size=5)
)


@settings(max_examples=40)
@given(models, st.data())
def test_the_mean_is_the_sum_by_hand(points: list[list[float]], data: st.DataObject) -> None:
    shares = data.draw(st.lists(st.floats(0.01, 9), min_size=len(points), max_size=len(points)))
    weights = [{"w": torch.tensor(point)} for point in points]
    for given_shares in (None, shares):
        factors = given_shares or [1.0] * len(points)
        wanted = [
            sum(f * p[i] for f, p in zip(factors, points, strict=True)) / sum(factors) for i in range(len(points[0]))
        ]
        found = average_weights(iter(weights), given_shares)["w"]
        assert found.dtype == torch.float32
        assert_close(found, torch.tensor(wanted), rtol=1e-6, atol=1e-6)
    order = data.draw(st.permutations(weights))
    assert_close(average_weights(order)["w"], average_weights(weights)["w"], rtol=1e-7, atol=1e-9)


@settings(max_examples=40)
@given(st.lists(numbers, min_size=1, max_size=4), st.integers(1, 60))
def test_the_mean_of_equal_weights_is_these_weights(point: list[float], count: int) -> None:
    weights = {"w": torch.tensor(point)}
    assert torch.equal(average_weights([weights] * count)["w"], weights["w"])


def test_statistics_are_averaged_and_counters_are_the_firsts() -> None:
    layers = [nn.BatchNorm1d(2), nn.BatchNorm1d(2)]
    for seed, layer in enumerate(layers):
        torch.manual_seed(seed)
        for _ in range(seed + 1):
            layer(torch.randn(8, 2) + seed)
    states = [layer.state_dict() for layer in layers]
    found = average_weights(states)
    for name in ("weight", "running_mean", "running_var"):
        assert_close(found[name], (states[0][name] + states[1][name]) / 2)
    assert (found["num_batches_tracked"].item(), found["num_batches_tracked"].dtype) == (1, torch.int64)
    layers[0].load_state_dict(found)
    assert not found["weight"].requires_grad
    found["weight"].add_(1)
    assert torch.equal(states[0]["weight"], torch.ones(2))


@pytest.mark.parametrize(("others", "shares", "message"), [
    ([{"w": torch.zeros(2)}], None, r"weights 2: got shape \(2,\) for w, expected \(3,\) as in the first"),
    ([{"v": torch.zeros(3)}], None, r"weights 2: got shape none for w, expected \(3,\)"),
    ([{"w": torch.zeros(3), "v": torch.zeros(1)}], None, r"weights 2: got shape \(1,\) for v, expected none"),
    ([{"w": torch.zeros(3)}], (1.0,), r"shares: got 1, expected one for each"),
    ([], (1.0, 2.0), r"shares: got 2 for 1 weights"),
    ([], (0.0,), r"shares: got \[0.0\], expected finite numbers of at least 0, not all 0"),
    ([], (-1.0,), r"shares: got \[-1.0\]"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(others: list[dict[str, torch.Tensor]], shares: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        average_weights([{"w": torch.zeros(3)}, *others], shares)  # type: ignore[arg-type]


def test_no_weights_are_refused() -> None:
    with pytest.raises(InputError, match="weights: got none"):
        fishr.average_weights([])
