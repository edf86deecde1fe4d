"""Loss and moments of a whole network: one pass where they can share it, else one each, with the same numbers."""

import pytest
import torch
from attrs import evolve
from cases import EXACT, FLOAT64, Twice, derivatives, oracle_moments
from torch import nn
from torch.testing import assert_close

from fishr.losses import CrossEntropy
from fishr.observation import observe
from fishr.types import DomainBatch


def network() -> tuple[nn.Module, nn.Module]:
    cnn = nn.Sequential(nn.Conv2d(2, 4, 2), nn.Tanh(), nn.GroupNorm(2, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return cnn.to(FLOAT64), nn.Linear(4, 3).to(FLOAT64)


def of_images(labels: list[int]) -> DomainBatch:
    return DomainBatch(torch.randn(5, 2, 4, 4, dtype=FLOAT64), torch.tensor(labels), (2, 3))


WHOLE = ("featurizer", "head")


def test_loss_and_moments_of_a_network_share_one_pass() -> None:
    """And the gradient is that of two passes."""
    featurizer, head = network()
    data, calls = of_images([0, 1, 2, 0, 1]), list[int]()
    shared = observe(featurizer, head, data, layers=WHOLE)
    apart = observe(featurizer, head, data, features=featurizer(data.inputs.clone()), layers=WHOLE)
    # A copy of the network has the same hook.
    featurizer.register_forward_hook(lambda *_: calls.append(1))
    of_shared, expected = (seen.losses.mean() + seen.moments.variance.square().sum() for seen in (shared, apart))
    assert calls == [1, 1]  # the other one's pass for its moments is the second
    assert_close(of_shared, expected, **EXACT)
    oracle = oracle_moments(nn.Sequential(featurizer, head), data.inputs, data.labels, data.sizes, CrossEntropy())
    assert_close(shared.moments.variance, oracle.variance, **EXACT)
    assert_close(derivatives(of_shared, featurizer, head), derivatives(expected, featurizer, head), **EXACT)


def test_the_moments_without_a_graph_leave_that_of_the_loss() -> None:
    featurizer, head = network()
    seen = observe(featurizer, head, of_images([0, 1, 2, 0, 1]), layers=WHOLE)
    loss, quiet = seen.losses.mean(), seen.detached().moments
    assert not quiet.variance.requires_grad
    assert_close(quiet.variance, seen.moments.variance, **EXACT)
    assert all(g.abs().max() > 0 for g in derivatives(loss, featurizer, head))


@pytest.mark.parametrize("reason", ["a layer called twice", "samples without a label", "no graph", "autocast"])
def test_moments_take_a_pass_of_their_own_where_they_cannot_share(reason: str) -> None:
    featurizer, head = network()
    if reason == "a layer called twice":
        featurizer = nn.Sequential(featurizer, Twice(4).to(FLOAT64))
    labels = [0, 1, 2, 0, -100] if reason == "samples without a label" else [0, 1, 2, 0, 1]
    data, loss = of_images(labels), CrossEntropy(ignore_index=-100)
    if reason == "autocast":
        featurizer, head, data = featurizer.float(), head.float(), evolve(data, inputs=data.inputs.float())
    seen = observe(featurizer, head, data, loss, layers=WHOLE)
    with torch.no_grad() if reason == "no graph" else torch.autocast("cpu", torch.bfloat16, reason == "autocast"):
        found = seen.moments
    known = data.labels >= 0
    whole, inputs = nn.Sequential(featurizer, head), data.inputs[known]
    expected = oracle_moments(whole, inputs, data.labels[known], seen.sizes, CrossEntropy()).variance
    assert_close(found.variance, expected, **({} if reason == "autocast" else EXACT))
    if reason != "no graph":
        by_found, by_expected = (derivatives(v.square().sum(), featurizer, head) for v in (found.variance, expected))
        assert_close(by_found, by_expected, **({"atol": 1e-6, "rtol": 1e-4} if reason == "autocast" else EXACT))
