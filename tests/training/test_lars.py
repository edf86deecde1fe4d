"""LARS against the two formulas, one number at a time in float64."""

import math

import pytest
import torch

from fishr.errors import InputError
from fishr.training.lars import LARS


def _weights():
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(5, 3), (3,), (), (2, 2, 2)]]
    return (*drawn, torch.zeros(4, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64))


def _gradients(step, weights):
    """Some steps leave one parameter out, one gradient is zero."""
    generator = torch.Generator().manual_seed(100 + step)
    drawn = [torch.randn(w.shape, generator=generator, dtype=torch.float64) * 10 ** (step % 5 - 2) for w in weights]
    drawn[3] *= step != 4
    return tuple(None if index == step % 7 else g for index, g in enumerate(drawn))


def _norm(numbers):
    return math.sqrt(math.fsum(number * number for number in numbers))


def _by_hand(optimizer, axes, weight, gradient, buffer):
    """One update of the numbers of one parameter."""
    exempt = optimizer.form == "domainbed" and axes < 2
    decay = 0.0 if exempt else optimizer.weight_decay
    direction = [g + decay * w for g, w in zip(gradient, weight, strict=True)]
    paper = _norm(gradient) + decay * _norm(weight)
    length = paper if optimizer.form == "paper" else _norm(direction)
    local = optimizer.trust * _norm(weight) / length if not exempt and length and _norm(weight) else 1.0
    buffer = [optimizer.momentum * b + local * d for b, d in zip(buffer, direction, strict=True)]
    return [w - optimizer.lr * b for w, b in zip(weight, buffer, strict=True)], buffer


@pytest.mark.parametrize("form", ["paper", "domainbed"])
@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 0.01), (0.0, 0.0), (0.5, 0.3)])
def test_twenty_steps_are_those_by_hand(form, momentum, decay):
    optimizer = LARS(lr=0.5, momentum=momentum, weight_decay=decay, trust=0.1, form=form)
    weights = _weights()
    state = optimizer.init(weights)
    numbers = [(w.flatten().tolist(), [0.0] * w.numel()) for w in weights]
    for step in range(20):
        gradients = _gradients(step, weights)
        weights, state = optimizer.update(gradients, state, weights)
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                numbers[index] = _by_hand(
                    optimizer, gradient.ndim, numbers[index][0], gradient.flatten().tolist(), numbers[index][1]
                )
        for weight, (expected, _) in zip(weights, numbers, strict=True):
            assert weight.flatten().tolist() == pytest.approx(expected, rel=1e-12, abs=1e-13)
    assert state.steps == (17, 17, 17, 17, 17, 17)


def test_a_step_is_a_share_of_the_weights_norm_whatever_the_gradients():
    """Without decay and momentum: the step does not change when gradients are scaled."""
    optimizer, weights = LARS(lr=1.0, momentum=0.0, trust=0.25), _weights()[:4]
    gradients = tuple(torch.ones_like(w) for w in weights)
    for factor in (1e-3, 1.0, 1e3):
        moved, _ = optimizer.update(tuple(factor * g for g in gradients), optimizer.init(weights), weights)
        for after, before in zip(moved, weights, strict=True):
            assert float((after - before).norm()) == pytest.approx(0.25 * float(before.norm()))


def test_arguments_do_not_change(bits):
    optimizer, weights = LARS(lr=0.1), _weights()
    state, gradients = optimizer.init(weights), tuple(torch.ones_like(w) for w in weights)
    before = bits((weights, state, gradients))
    optimizer.update(gradients, state, weights)
    assert bits((weights, state, gradients)) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.0}, "lr: got 0.0, expected a number greater than 0.0"),
        ({"momentum": 1.0}, "momentum: got 1.0, expected a number of at least 0.0 and less than 1.0"),
        ({"trust": 0.0}, "trust: got 0.0, expected a number greater than 0.0"),
        ({"form": "torch"}, "form: got 'torch', expected 'paper' or 'domainbed'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        LARS(**({"lr": 1.0} | settings))
