"""Whole networks point by point: equal to setting the weights, with the module as it was."""

import copy

import pytest
import torch
from cases import EXACT, FLOAT64, HEADS
from loss_cases import EVERY_LOSS
from torch import nn

from fishr.errors import InputError
from fishr.landscape import Plane, linear_scores, network_scores, weights_of
from fishr.losses import CrossEntropy

XS, YS = torch.linspace(-1, 1, 3, dtype=FLOAT64), torch.linspace(-1, 0.5, 2, dtype=FLOAT64)


def _plane(module, buffers=False):
    weights = weights_of(module, buffers=buffers)
    return Plane(weights, *({name: 0.3 * torch.rand_like(value) for name, value in weights.items()} for _ in range(2)))


@pytest.mark.parametrize("name", [name for name, case in HEADS.items() if not case.recurrent])
def test_equal_to_setting_the_weights(oracle, name):
    head, case = HEADS[name].head(3), HEADS[name]
    samples = [(case.inputs(n), torch.randint(3, (n,))) for n in (5, 2)]
    plane = _plane(head)
    found = network_scores(head, plane, samples, XS, YS, chunk=2)
    expected = oracle(head, plane, samples, XS, YS, CrossEntropy())
    torch.testing.assert_close(found.losses, expected.losses, **EXACT)
    torch.testing.assert_close(found.accuracies, expected.accuracies, **EXACT)
    assert expected.losses.std() > 1e-4


@pytest.mark.parametrize("case", EVERY_LOSS.values(), ids=EVERY_LOSS)
def test_agrees_with_the_shortcut_of_a_linear_head(case):
    head = nn.Linear(3, case.outputs, dtype=FLOAT64)
    samples, plane = [(torch.randn(6, 3, dtype=FLOAT64), case.labels(6))], _plane(head)
    found = network_scores(head, plane, samples, XS, YS, case.loss)
    expected = linear_scores(plane, samples, XS, YS, case.loss)
    torch.testing.assert_close(found.losses, expected.losses, **EXACT)
    torch.testing.assert_close(found.accuracies, expected.accuracies, **EXACT, equal_nan=True)


def _noisy():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).double()
    network.train()
    network[2].eval()
    return network


def test_the_module_is_as_it_was():
    """Train mode stays, though the landscape is of eval mode; running means do not move; .grad stays empty."""
    network = _noisy()
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    samples = [(torch.randn(6, 3, dtype=FLOAT64), torch.randint(2, (6,)))]
    ids = [id(parameter) for parameter in network.parameters()]
    found = network_scores(network, _plane(network), samples, XS, 0 * YS)
    assert [module.training for module in network.modules()] == modes
    assert [id(parameter) for parameter in network.parameters()] == ids
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not found.losses.requires_grad
    inputs, labels = samples[0]
    with torch.no_grad():
        expected = CrossEntropy()(network.eval()(inputs), labels).mean()
    torch.testing.assert_close(found.losses[0, 1, 0], expected)


def test_buffers_move_where_they_are_asked_to(oracle):
    network = _noisy().eval()
    plane = _plane(network, buffers=True)
    assert "1.running_var" in plane.center
    assert "1.num_batches_tracked" not in plane.center
    samples = [(torch.randn(6, 3, dtype=FLOAT64), torch.randint(2, (6,)))]
    xs = XS[1:]
    found = network_scores(network, plane, samples, xs, YS[1:])
    torch.testing.assert_close(
        found.losses, oracle(network, plane, samples, xs, YS[1:], CrossEntropy()).losses, **EXACT
    )
    still = Plane(
        *({n: v for n, v in w.items() if "running" not in n} for w in (plane.center, plane.first, plane.second))
    )
    assert not torch.allclose(found.losses, network_scores(network, still, samples, xs, YS[1:]).losses, atol=1e-4)


def test_parameters_that_do_not_move_stay(oracle):
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    network[0].requires_grad_(False)
    plane = _plane(network)
    assert list(plane.center) == ["2.weight", "2.bias"]
    samples = [(torch.randn(6, 3, dtype=FLOAT64), torch.randint(2, (6,)))]
    expected = oracle(network, plane, samples, XS, YS, CrossEntropy())
    torch.testing.assert_close(network_scores(network, plane, samples, XS, YS).losses, expected.losses, **EXACT)


def test_weights_of_another_module_are_refused():
    module, weights = nn.Linear(3, 2), {"elsewhere": torch.ones(2)}
    with pytest.raises(InputError, match="parameter elsewhere: got shapes"):
        network_scores(module, Plane(weights, weights), [], XS, YS)
    with pytest.raises(InputError, match="parameter weight"):
        Plane({"weight": torch.ones(2, 2)}, {"weight": torch.ones(2, 3)})
