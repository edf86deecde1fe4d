"""The pure optimizers against torch.optim, bit for bit."""

from contextlib import suppress

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from naming import stable_name
from torch.utils._python_dispatch import TorchDispatchMode

from fishr.errors import InputError
from fishr.training.lars import LARS
from fishr.training.optimizers import Adam, AdamW
from fishr.training.sgd import SGD

CASES = [
    (Adam(lr=0.01), lambda p: torch.optim.Adam(p, lr=0.01)),
    (
        Adam(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
    ),
    (Adam(lr=0.01, fused=True), lambda p: torch.optim.Adam(p, lr=0.01, fused=True)),
    (AdamW(lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)),
    (
        AdamW(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.3),
        lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.3),
    ),
    (AdamW(lr=0.01, fused=True), lambda p: torch.optim.AdamW(p, lr=0.01, fused=True)),
    (SGD(lr=0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
    (
        SGD(lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    ),
    (
        SGD(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    ),
]


class Operators(TorchDispatchMode):
    """Names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def _weights():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in [(5, 3), (3,), (), (2, 2, 2)])


def _gradients(step, weights):
    """Some steps leave one parameter out, as an unused one is."""
    generator = torch.Generator().manual_seed(100 + step)
    drawn = [torch.randn(w.shape, generator=generator) * 10 ** (step % 5 - 2) for w in weights]
    return tuple(None if index == step % 7 else g for index, g in enumerate(drawn))


@pytest.mark.parametrize(("pure", "make"), CASES, ids=stable_name)
def test_twenty_steps_are_torch_optims(pure, make):
    weights = _weights()
    parameters = [torch.nn.Parameter(w.clone()) for w in weights]
    theirs, state = make(parameters), pure.init(weights)
    for step in range(20):
        gradients = _gradients(step, weights)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.clone()
        theirs.step()
        weights, state = pure.update(gradients, state, weights)
        for ours, expected in zip(weights, parameters, strict=True):
            assert torch.equal(ours, expected.detach())
    assert state.steps == (17, 17, 17, 17)


@pytest.mark.parametrize(("pure", "make"), CASES, ids=stable_name)
def test_inputs_are_left_as_they_were(pure, make, bits):
    weights, state = _weights(), pure.init(_weights())
    for step in range(3):
        gradients = tuple(torch.ones_like(w) * (step + 1) for w in weights)
        before = bits((weights, state, gradients))
        moved, after = pure.update(gradients, state, weights)
        assert bits((weights, state, gradients)) == before
        assert not torch.equal(moved[0], weights[0])
        assert not any(t.requires_grad for t in moved)
        weights, state = moved, after


@pytest.mark.parametrize(("kind", "kernel"), [(Adam, "adam"), (AdamW, "adamw"), (SGD, "sgd")])
@pytest.mark.parametrize("fused", [False, True])
def test_fused_is_one_kernel_and_else_parameters_are_updated_together(kind, kernel, fused):
    """Check the operators that run: on a CPU the results may be the same."""
    optimizer, weights = kind(lr=0.1, fused=fused), _weights()
    gradients, state = _gradients(5, weights), optimizer.init(weights)
    with Operators() as seen:
        optimizer.update(gradients, state, weights)
    assert (f"aten._fused_{kernel}_.default" in seen.names) == fused
    # Only the fused kernels, which write in place, need copies of each.
    assert fused or not [name for name in seen.names if "foreach" not in name]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_descent_is_the_same_but_for_rounding(momentum):
    """torch's own fused SGD cannot have one parameter begin later than another."""
    plain, fused = SGD(lr=0.1, momentum=momentum), SGD(lr=0.1, momentum=momentum, fused=True)
    one, other = ((_weights(), plain.init(_weights())) for _ in range(2))
    for step in range(10):
        one = plain.update(_gradients(step, one[0]), one[1], one[0])
        other = fused.update(_gradients(step, other[0]), other[1], other[0])
    assert one[1].steps == other[1].steps
    for got, expected in zip(other[0], one[0], strict=True):
        torch.testing.assert_close(got, expected)


def test_without_a_gradient_nothing_moves():
    weights = _weights()
    optimizer = Adam(lr=0.1, weight_decay=0.5)
    moved, state = optimizer.update((None,) * 4, optimizer.init(weights), weights)
    assert all(ours is given for ours, given in zip(moved, weights, strict=True))
    assert state.steps == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(lr=0), "lr: got 0, expected a number greater than 0.0"),
        (lambda: Adam(lr=float("nan")), "lr: got nan"),
        (lambda: Adam(lr="0.1"), "lr: got '0.1'"),
        (lambda: Adam(lr=1.0, betas=(0.9, 1.0)), r"betas: got \(0.9, 1.0\)"),
        (lambda: Adam(lr=1.0, eps=-1.0), "eps: got -1.0"),
        (lambda: SGD(lr=1.0, momentum=1.0), "momentum: got 1.0, expected a number of at least 0.0 and less than 1.0"),
        (lambda: SGD(lr=float("inf")), "lr: got inf"),
        (lambda: AdamW(lr=1.0, weight_decay=-0.1), "weight_decay: got -0.1"),
        (lambda: SGD(lr=1.0, nesterov=True), "nesterov: got true without momentum, expected a momentum greater than 0"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@given(
    kind=st.sampled_from([Adam, AdamW, SGD, LARS]),
    lr=st.floats(1e30, 1e300),
    decay=st.floats(0, 1e300),
    beta=st.sampled_from([0.0, 0.9, 0.999999]),
)
@example(Adam, 1e38, 0.0, 0.9)
@example(SGD, 1e39, 0.0, 0.0)
@example(LARS, 1.0, 1e39, 0.0)
def test_numbers_that_float32_cannot_hold_are_refused_before_an_update(kind, lr, decay, beta):
    own = {"betas": (beta, 0.999)} if kind in (Adam, AdamW) else {"momentum": beta}
    weights = (torch.ones(2),)
    with suppress(InputError):
        optimizer = kind(lr=lr, weight_decay=decay, **own)
        optimizer.update(weights, optimizer.init(weights), weights)


@pytest.mark.parametrize("make", [Adam, AdamW])
def test_the_first_step_of_adam_may_be_as_large_as_float32_holds(make):
    assert make(lr=3.3e37).lr == 3.3e37
    with pytest.raises(InputError, match=r"lr: got 3\.5e\+37, expected less than 3\.4e\+37 with betas"):
        make(lr=3.5e37)
