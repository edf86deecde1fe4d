"""Clipped gradients: torch's own to the bit, and what they do to a step."""

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fishr.errors import InputError
from fishr.training.model import build_model
from fishr.training.optimizers import clipped
from fishr.training.sgd import SGD
from fishr.training.state import first_state
from fishr.training.step import advance


@given(st.integers(0, 2**31), st.sampled_from([1e-5, 1e-3, 1.0, 1e3]), st.floats(0.01, 10.0))
def test_the_bits_are_torchs(seed, size, ratio):
    """Down to norms beside which torch's 1e-6 counts."""
    draws, most = torch.Generator().manual_seed(seed), size * ratio
    gradients = tuple(size * torch.randn(shape, generator=draws) for shape in ((3, 2), (5,), ()))
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, most)
    for found, parameter in zip(clipped(gradients, most), parameters, strict=True):
        assert torch.equal(found, parameter.grad)


def test_what_has_no_gradient_has_none_still():
    assert clipped((None, None), 1.0) == (None, None)


def test_a_step_moves_no_farther_than_the_norm(plain):
    """Of plain descent, the step's length is the learning rate times the clipped norm, in the same direction."""
    free = attrs.evolve(plain, optimizer=SGD(lr=1.0))
    domains = free.data(free.seed, None)
    model = build_model(free, domains)
    state = first_state(free, model, 2)

    def moved(experiment):
        after, _ = advance(model, experiment, state, domains.training)
        return torch.cat([(after.parameters[name] - p).flatten().double() for name, p in state.parameters.items()])

    whole, small, large = (moved(attrs.evolve(free, clip_norm=most)) for most in (None, 1e-3, 1e6))
    assert whole.norm() > 1e-2
    assert small.norm().item() == pytest.approx(1e-3, rel=1e-2)
    assert torch.nn.functional.cosine_similarity(small, whole, dim=0) > 0.999
    assert torch.equal(large, whole)


@pytest.mark.parametrize("most", [0.0, -1.0, float("inf")])
def test_norms_that_bound_nothing_are_refused(plain, most):
    with pytest.raises(InputError, match="clip_norm: got"):
        attrs.evolve(plain, clip_norm=most)
